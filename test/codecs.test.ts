import { describe, expect, it } from 'vitest'
import {
  asBytes,
  codecByName,
  codecNames,
  elementTypeName,
  elementTypeOf,
  packTraits,
  typedArrays,
  unpackTraits,
  type CodecName,
} from '../src/codecs.js'
import { ArgumentError, PayloadError } from '../src/errors.js'

function roundTrip(codec: CodecName, value: unknown): unknown {
  const { encode, decode } = codecByName(codec)
  return decode(encode(value))
}

describe('raw', () => {
  it('takes bytes of any kind without a copy', () => {
    const buffer = new ArrayBuffer(8)
    const view = new DataView(buffer, 2, 4)
    expect(codecByName('raw').encode(view)).toMatchObject({ byteOffset: 2, byteLength: 4, buffer })
    expect(codecByName('raw').encode(buffer).buffer).toBe(buffer)
    const bytes = Buffer.from('x')
    expect(codecByName('raw').encode(bytes)).toBe(bytes)
    expect(codecByName('raw').encode(undefined).byteLength).toBe(0)
    expect(asBytes(new SharedArrayBuffer(3))?.byteLength).toBe(3)
  })

  it.each(['text', 5, {}, [1], null, true])('refuses %j', (value) => {
    expect(() => codecByName('raw').encode(value)).toThrow(PayloadError)
  })
})

describe('json', () => {
  it.each([[{ a: [1, 'ü', null] }], ['text'], [0], [null], [undefined], [[]]])('carries %j', (value) => {
    expect(roundTrip('json', value)).toEqual(value)
  })

  it('refuses what JSON cannot say, and what is no JSON', () => {
    const circle: Record<string, unknown> = {}
    circle['self'] = circle
    for (const value of [circle, 5n, () => 1, Symbol('x')])
      expect(() => codecByName('json').encode(value)).toThrow(PayloadError)
    expect(() => codecByName('json').decode(Buffer.from('{'))).toThrow(/codec json/)
    expect(() => codecByName('json').decode(Buffer.from([0x22, 0xff, 0x22]))).toThrow(PayloadError)
  })
})

describe('structured', () => {
  it('carries what structured clone carries', () => {
    const value = {
      when: new Date(5),
      map: new Map([['k', new Set([1n])]]),
      floats: new Float64Array([1.5]),
      none: undefined,
    }
    expect(roundTrip('structured', value)).toEqual(value)
  })

  it('refuses functions and foreign bytes', () => {
    expect(() => codecByName('structured').encode(() => 1)).toThrow(PayloadError)
    expect(() => codecByName('structured').decode(Buffer.from('nonsense'))).toThrow(PayloadError)
  })
})

describe('typed arrays', () => {
  it.each(codecNames.filter((name) => name.endsWith('Array')))('%s comes back with its values', (name) => {
    const { constructor } = typedArrays.find((entry) => entry.constructor.name === name)!
    const value = new constructor(new ArrayBuffer(constructor.BYTES_PER_ELEMENT * 3))
    value[1] = name.startsWith('Big') ? 7n : 7
    expect(roundTrip(name, value)).toEqual(value)
  })

  it('are views where aligned and copies where not', () => {
    const { decode } = codecByName('Float64Array')
    const memory = new Uint8Array(24)
    expect((decode(memory.subarray(8)) as Float64Array).buffer).toBe(memory.buffer)
    expect((decode(memory.subarray(1, 17)) as Float64Array).buffer).not.toBe(memory.buffer)
    // slice() of a Buffer is a view.
    const buffer = Buffer.from(memory.buffer, 1, 16)
    expect(decode(buffer)).toEqual(new Float64Array(2))
    expect(() => decode(memory.subarray(0, 7))).toThrow(/no multiple of the element size 8/)
  })

  it('are not mistaken for each other', () => {
    expect(() => codecByName('Float64Array').encode(new Float32Array(2))).toThrow(/takes a Float64Array/)
  })

  it('have element codes of their own', () => {
    expect(new Set(typedArrays.map(({ code }) => code)).size).toBe(11)
    expect(elementTypeOf(Float64Array)).toBe(9)
    expect(elementTypeName(9)).toBe('Float64Array')
    expect(elementTypeName(0)).toBeUndefined()
    expect(() => elementTypeOf(Array as never)).toThrow(ArgumentError)
  })
})

describe('function traits', () => {
  it('survive the flags of a function, for all codecs', () => {
    for (const input of codecNames) {
      for (const output of codecNames) {
        const traits = { stream: false, idempotent: true, input: codecByName(input), output: codecByName(output) }
        const flags = packTraits(traits)
        expect(flags).toBeLessThan(2 ** 16)
        expect(unpackTraits(flags)).toEqual(traits)
      }
    }
    expect(unpackTraits(1)).toMatchObject({ stream: true, idempotent: false })
  })

  it('refuse codecs of a newer version', () => {
    expect(() => unpackTraits(15 << 8)).toThrow(PayloadError)
    expect(() => codecByName('yaml')).toThrow(/expected one of raw, json, structured/)
  })
})
