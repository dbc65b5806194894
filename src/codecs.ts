/**
 * How values become payload bytes and back. A function declares its codecs, the worker registers them with it, and a
 * client learns them when it resolves the function's name, so both sides always agree.
 */
import { ArgumentError, messageOf, PayloadError } from './errors.js'

/** The typed arrays that payloads and shared arrays can have as elements. */
export interface TypedArrays {
  Int8Array: Int8Array
  Uint8Array: Uint8Array
  Uint8ClampedArray: Uint8ClampedArray
  Int16Array: Int16Array
  Uint16Array: Uint16Array
  Int32Array: Int32Array
  Uint32Array: Uint32Array
  Float32Array: Float32Array
  Float64Array: Float64Array
  BigInt64Array: BigInt64Array
  BigUint64Array: BigUint64Array
}

export type TypedArrayName = keyof TypedArrays
export type TypedArray = TypedArrays[TypedArrayName]

export interface TypedArrayConstructor<Elements extends TypedArray = TypedArray> {
  readonly name: string
  readonly BYTES_PER_ELEMENT: number
  new (buffer: ArrayBufferLike, byteOffset?: number, length?: number): Elements
}

/** What `raw` takes as bytes. */
export type Bytes = Uint8Array | ArrayBuffer | SharedArrayBuffer | ArrayBufferView

/**
 * `raw`: bytes as they are · `json`: JSON text · `structured`: whatever the structured clone algorithm takes (Map, Date,
 * bigint, cycles, typed arrays, …) · a typed array by name: its elements as they lie in memory, in place where aligned.
 */
export type CodecName = 'raw' | 'json' | 'structured' | Exclude<TypedArrayName, 'Uint8Array'>

export interface Codec {
  readonly name: CodecName
  /** Number in the function's flags; never changes its meaning. */
  readonly id: number
  /** @throws {PayloadError} `ERR_PAYLOAD_CODEC` */
  encode(value: unknown): Uint8Array
  /** May return a view of `bytes`. @throws {PayloadError} `ERR_PAYLOAD_CODEC` */
  decode(bytes: Uint8Array): unknown
}

/** Numbers are part of the segment layout and of the wire format. */
export const typedArrays: readonly { readonly code: number; readonly constructor: TypedArrayConstructor }[] = [
  { code: 1, constructor: Int8Array },
  { code: 2, constructor: Uint8Array },
  { code: 3, constructor: Uint8ClampedArray },
  { code: 4, constructor: Int16Array },
  { code: 5, constructor: Uint16Array },
  { code: 6, constructor: Int32Array },
  { code: 7, constructor: Uint32Array },
  { code: 8, constructor: Float32Array },
  { code: 9, constructor: Float64Array },
  { code: 10, constructor: BigInt64Array },
  { code: 11, constructor: BigUint64Array },
]

/** The code of a typed array's elements in shared state. */
export function elementTypeOf(constructor: TypedArrayConstructor): number {
  const found = typedArrays.find((entry) => entry.constructor === constructor)
  if (!found) throw new ArgumentError(`${constructor.name} is no typed array; use Float64Array, Int32Array, …`)
  return found.code
}

/** The name of the typed array of an element code, or undefined for 0 and unknown codes. */
export function elementTypeName(code: number): TypedArrayName | undefined {
  return typedArrays.find((entry) => entry.code === code)?.constructor.name as TypedArrayName | undefined
}

const raw: Codec = {
  name: 'raw',
  id: 0,
  encode(value) {
    const bytes = asBytes(value)
    if (!bytes) throw codecError('raw', `takes bytes (Uint8Array, ArrayBuffer, …), not ${describe(value)}`)
    return bytes
  },
  decode: (bytes) => bytes,
}

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true })

const json: Codec = {
  name: 'json',
  id: 1,
  encode(value) {
    if (value === undefined) return empty
    let text: unknown
    try {
      text = JSON.stringify(value)
    } catch (error) {
      throw codecError('json', messageOf(error), error)
    }
    if (typeof text !== 'string') throw codecError('json', `cannot express ${describe(value)}`)
    return encoder.encode(text)
  },
  decode(bytes) {
    if (bytes.byteLength === 0) return undefined
    try {
      return JSON.parse(decoder.decode(bytes)) as unknown
    } catch (error) {
      throw codecError('json', `${messageOf(error)} in ${bytes.byteLength} bytes`, error)
    }
  },
}

let loadedV8: typeof import('node:v8') | undefined

/** Loaded when needed: it takes a twentieth of the start of a worker, and most never use it. */
function v8(): typeof import('node:v8') {
  return (loadedV8 ??= process.getBuiltinModule('node:v8'))
}

const structured: Codec = {
  name: 'structured',
  id: 2,
  encode(value) {
    try {
      return v8().serialize(value)
    } catch (error) {
      throw codecError('structured', messageOf(error), error)
    }
  },
  decode(bytes) {
    if (bytes.byteLength === 0) return undefined
    try {
      return v8().deserialize(bytes) as unknown
    } catch (error) {
      throw codecError('structured', `${messageOf(error)} in ${bytes.byteLength} bytes`, error)
    }
  },
}

function typedArrayCodec(constructor: TypedArrayConstructor, id: number): Codec {
  const name = constructor.name as CodecName
  const size = constructor.BYTES_PER_ELEMENT
  return {
    name,
    id,
    encode(value) {
      if (value === undefined) return empty
      if (!(value instanceof constructor)) throw codecError(name, `takes a ${name}, not ${describe(value)}`)
      return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    },
    decode(bytes) {
      if (bytes.byteLength % size !== 0) {
        throw codecError(name, `${bytes.byteLength} bytes are no multiple of the element size ${size}`)
      }
      // Payloads lie on cache-line boundaries; only bytes from elsewhere (a Buffer from Node's pool) have to be moved.
      const aligned = bytes.byteOffset % size === 0 ? bytes : new Uint8Array(bytes)
      return new constructor(aligned.buffer, aligned.byteOffset, aligned.byteLength / size)
    },
  }
}

const empty = new Uint8Array(0)

// Ids 3 … 13 follow the element codes; four bits hold them all.
const codecs: readonly Codec[] = [
  raw,
  json,
  structured,
  ...typedArrays
    .filter(({ constructor }) => constructor !== Uint8Array)
    .map(({ code, constructor }) => typedArrayCodec(constructor, code + 2)),
]
const byName = new Map<string, Codec>(codecs.map((codec) => [codec.name, codec]))
const byId = new Map<number, Codec>(codecs.map((codec) => [codec.id, codec]))

export const codecNames: readonly CodecName[] = codecs.map((codec) => codec.name)
export const rawCodec: Codec = raw

/** @throws {ArgumentError} for a name there is no codec of. */
export function codecByName(name: string): Codec {
  const codec = byName.get(name === 'Uint8Array' ? 'raw' : name)
  if (!codec) throw new ArgumentError(`codec is ${JSON.stringify(name)}; expected one of ${codecNames.join(', ')}`)
  return codec
}

// FunctionFlags as native/segment/layout.h has them; bits 8 … 15 belong to this file.
const streamFlag = 1 << 0
const idempotentFlag = 1 << 1

/** What a function declares about itself, as it travels in the function's flags. */
export interface FunctionTraits {
  readonly stream: boolean
  readonly idempotent: boolean
  readonly input: Codec
  readonly output: Codec
}

export function packTraits(traits: FunctionTraits): number {
  return (
    (traits.stream ? streamFlag : 0) |
    (traits.idempotent ? idempotentFlag : 0) |
    (traits.input.id << 8) |
    (traits.output.id << 12)
  )
}

/** @throws {PayloadError} `ERR_PAYLOAD_CODEC` when the function uses a codec of a newer version. */
export function unpackTraits(flags: number): FunctionTraits {
  return {
    stream: (flags & streamFlag) !== 0,
    idempotent: (flags & idempotentFlag) !== 0,
    input: codecById((flags >> 8) & 15),
    output: codecById((flags >> 12) & 15),
  }
}

function codecById(id: number): Codec {
  const codec = byId.get(id)
  if (!codec) throw new PayloadError('ERR_PAYLOAD_CODEC', `codec number ${id} is not known to this version of praas`)
  return codec
}

/** The bytes of anything `raw` takes, as a view; undefined for everything else. */
export function asBytes(value: unknown): Uint8Array | undefined {
  if (value instanceof Uint8Array) return value
  if (value === undefined) return empty
  if (ArrayBuffer.isView(value)) return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
  if (value instanceof ArrayBuffer || value instanceof SharedArrayBuffer) return new Uint8Array(value)
  return undefined
}

/** How a value is called in a message. */
export function describe(value: unknown): string {
  if (value === null || value === undefined) return String(value)
  if (typeof value === 'object')
    return `an object of ${(value.constructor as { name?: string } | undefined)?.name ?? 'no class'}`
  return `a ${typeof value}`
}

function codecError(codec: string, why: string, cause?: unknown): PayloadError {
  return new PayloadError('ERR_PAYLOAD_CODEC', `codec ${codec}: ${why}`, { cause })
}
