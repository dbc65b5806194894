/** How an application declares more about a function than its code says. */
import { codecByName, type CodecName, type FunctionTraits } from '../codecs.js'
import { ArgumentError } from '../errors.js'
import type { Context } from './context.js'

export interface FunctionOptions {
  /** How input and result become bytes; the types follow from the handler. Default: `raw`. */
  readonly codec?: CodecName
  /** Codec of the input, where it differs from `codec`. */
  readonly input?: CodecName
  /** Codec of the result, where it differs from `codec`. */
  readonly output?: CodecName
  /**
   * May run more than once: a call is repeated when the worker, the host or the connection dies under it. Default: false.
   */
  readonly idempotent?: boolean
  /** The handler takes and returns streams of chunks. Default: false. */
  readonly stream?: false
}

export interface StreamFunctionOptions {
  readonly stream: true
  readonly idempotent?: false
}

/** A handler with what it declares about itself. Callable like the handler. */
export interface DefinedFunction<Input, Output> {
  (input: Input, context: Context): Output | Promise<Output>
}

/** A handler of streams with back-pressure in both directions. Chunks of the input are valid until the next is taken. */
export interface DefinedStreamFunction {
  (input: AsyncIterable<Uint8Array>, context: Context): AsyncIterable<Uint8Array>
  readonly stream: true
}

// A registered symbol: the application may bring another copy of this package than its worker has.
const traitsKey = Symbol.for('praas.function.traits')
const known = ['codec', 'input', 'output', 'idempotent', 'stream']

/**
 * Declares codecs, idempotence or streaming of an exported function.
 *
 * ```ts
 * export const add = defineFunction({ codec: 'json', idempotent: true }, (input: { a: number; b: number }) => input.a + input.b)
 * export const upper = defineFunction({ stream: true }, async function* (chunks) {
 *   for await (const chunk of chunks) yield new TextEncoder().encode(new TextDecoder().decode(chunk).toUpperCase())
 * })
 * ```
 *
 * @throws {ArgumentError} for an unknown option or codec
 */
export function defineFunction(
  options: StreamFunctionOptions,
  handler: (input: AsyncIterable<Uint8Array>, context: Context) => AsyncIterable<Uint8Array>,
): DefinedStreamFunction
export function defineFunction<Input, Output>(
  options: FunctionOptions,
  handler: (input: Input, context: Context) => Output | Promise<Output>,
): DefinedFunction<Input, Output>
export function defineFunction(
  options: FunctionOptions | StreamFunctionOptions,
  handler: (input: never, context: Context) => unknown,
): unknown {
  if (typeof handler !== 'function')
    throw new ArgumentError(`defineFunction: handler is ${typeof handler}; expected a function`)
  for (const name of Object.keys(options)) {
    if (!known.includes(name))
      throw new ArgumentError(`defineFunction: unknown option "${name}"; known are ${known.join(', ')}`)
  }
  const defined = (input: never, context: Context): unknown => handler(input, context)
  Object.defineProperty(defined, 'name', { value: handler.name, configurable: true })
  if (options.stream === true) Object.defineProperty(defined, 'stream', { value: true })
  return Object.defineProperty(defined, traitsKey, { value: traitsFrom(options) })
}

function traitsFrom(options: FunctionOptions | StreamFunctionOptions): FunctionTraits {
  const {
    codec = 'raw',
    input = codec,
    output = codec,
  }: Pick<FunctionOptions, 'codec' | 'input' | 'output'> = options as FunctionOptions
  const stream = options.stream ?? false
  if (stream && (input !== 'raw' || output !== 'raw')) {
    throw new ArgumentError('defineFunction: a streaming function takes and gives bytes; remove the codec')
  }
  return {
    stream,
    idempotent: options.idempotent ?? false,
    input: codecByName(input),
    output: codecByName(output),
  }
}

/** What a function declares, or the defaults of a plain one. */
export function traitsOf(handler: object): FunctionTraits {
  const traits = (handler as { [traitsKey]?: FunctionTraits })[traitsKey]
  return traits ?? { stream: false, idempotent: false, input: codecByName('raw'), output: codecByName('raw') }
}
