import { describe, expect, it } from 'vitest'
import { unpackTraits } from '../../src/codecs.js'
import type { NativeAbi, NativeFunctionRequest } from '../../src/control.js'
import {
  chooseFunctions,
  offerOfTable,
  offersOfLibrary,
  type NativeFunction,
} from '../../src/deploy/native_functions.js'
import type { NativeLibrary } from '../../src/deploy/native_library.js'
import { DeployError } from '../../src/errors.js'

function library(source: string, functions: Record<string, NativeAbi>, adapter = false): NativeLibrary {
  const described = Object.entries(functions).map(([name, abi]) => ({ name, abi, flags: 0 }))
  return { source, path: `/apps/0${source}`, hash: '0', adapter, functions: described }
}

const plain = library('/libplain.so', { fft: 'raw', solve: 'c' })
const other = library('/libother.so', { fft: 'raw', mean: 'raw' })
const praas = library('/libpraas.so', { sum: 'praas' }, true)

function choose(
  libraries: readonly NativeLibrary[],
  functions?: Record<string, NativeFunctionRequest>,
  maxOutputBytes?: number,
): NativeFunction[] {
  return chooseFunctions(libraries.flatMap(offersOfLibrary), libraries, { functions, maxOutputBytes })
}

function refusal(libraries: readonly NativeLibrary[], functions?: Record<string, NativeFunctionRequest>): string {
  try {
    choose(libraries, functions)
  } catch (error) {
    expect(error).toBeInstanceOf(DeployError)
    return (error as Error).message
  }
  throw new Error('it was accepted')
}

describe('functions of libraries', () => {
  it('are all offered unless some are chosen', () => {
    expect(choose([plain, praas])).toEqual([
      expect.objectContaining({ name: 'fft', symbol: 'fft', abi: 'raw', library: '/libplain.so', flags: 0 }),
      expect.objectContaining({ name: 'solve', abi: 'c', path: '/apps/0/libplain.so', maxOutputBytes: undefined }),
      expect.objectContaining({ name: 'sum', abi: 'praas', library: '/libpraas.so' }),
    ])
    expect(choose([plain, praas], { solve: {} }).map(({ name }) => name)).toEqual(['solve'])
  })

  it('go by the names they are given, several times if need be', () => {
    const chosen = choose([plain], { b: { symbol: 'fft' }, a: { symbol: 'fft', idempotent: true } })
    expect(chosen).toMatchObject([
      { name: 'a', symbol: 'fft', flags: 2 },
      { name: 'b', symbol: 'fft', flags: 0 },
    ])
  })

  it('declare codecs and idempotence', () => {
    const [chosen] = choose([plain], { fft: { idempotent: true, input: 'json', output: 'Float64Array' } })
    expect(unpackTraits(chosen?.flags ?? 0)).toMatchObject({
      stream: false,
      idempotent: true,
      input: { name: 'json' },
      output: { name: 'Float64Array' },
    })
    const declared = { ...plain, functions: [{ name: 'f', abi: 'c' as const, flags: 0xffffff02 }] }
    expect(choose([declared])).toMatchObject([{ flags: 2 }])
    expect(choose([declared], { f: { idempotent: false } })).toMatchObject([{ flags: 0 }])
  })

  it('have a bound of their results when they are raw', () => {
    expect(choose([plain], { fft: { maxOutputBytes: 5 } })).toMatchObject([{ maxOutputBytes: 5 }])
    expect(choose([plain], undefined, 7)).toMatchObject([{ maxOutputBytes: 7 }, { maxOutputBytes: undefined }])
    expect(choose([plain], { fft: { maxOutputBytes: 5 } }, 7)).toMatchObject([{ maxOutputBytes: 5 }])
    expect(refusal([plain], { solve: { maxOutputBytes: 5 } })).toContain('solve of /libplain.so is of ABI c')
    expect(refusal([praas], { sum: { maxOutputBytes: 5 } })).toContain('is of ABI praas')
  })

  it('can be called in another way only where that is possible', () => {
    expect(choose([praas], { sum: { abi: 'raw', maxOutputBytes: 5 } })).toMatchObject([{ abi: 'raw' }])
    expect(choose([praas], { sum: { abi: 'praas' } })).toMatchObject([{ abi: 'praas' }])
    expect(refusal([plain], { fft: { abi: 'praas' } })).toContain('<praas/process/runtime/context.hpp>')
    expect(refusal([plain], { fft: { abi: 'c' } })).toContain('is not registered with PRAAS_FUNCTION')
    expect(refusal([plain], { solve: { abi: 'raw' } })).toContain('is registered with PRAAS_FUNCTION')
  })

  it('have to be there', () => {
    expect(refusal([plain, other], { ftt: {} })).toContain(
      'there is no native function ftt: libplain.so has fft, solve; libother.so has fft, mean.',
    )
    expect(refusal([plain, other], { fft: { symbol: 'x' } })).toContain('there is no native function x')
    expect(refusal([plain, other], { mean: { library: '/libplain.so' } })).toContain('libplain.so has fft, solve. ')
    expect(refusal([library('/libnone.so', {})])).toContain('no native function is offered by /libnone.so')
    expect(refusal([plain], {})).toContain('no native function is offered by /libplain.so')
    const many = Object.fromEntries(Array.from({ length: 21 }, (_, index) => [`f${index}`, 'raw' as const]))
    expect(refusal([library('/libmany.so', many)], { g: {} })).toContain('f19, … (21)')
  })

  it('that two libraries have need a word more', () => {
    expect(refusal([plain, other])).toContain('function fft is offered by /libplain.so (fft) and by /libother.so (fft)')
    expect(refusal([plain, other], { fft: {} })).toContain('functions: { fft: { library, symbol } }')
    expect(choose([plain, other], { fft: { library: '/libother.so' } })).toMatchObject([{ library: '/libother.so' }])
  })

  it('have names within the limits, and there are at most 1024', () => {
    const long = 'x'.repeat(256)
    expect(refusal([library('/lib.so', { [long]: 'raw' })])).toContain('1 … 255 bytes of UTF-8 without NUL')
    expect(choose([library('/lib.so', { [long]: 'raw' })], { f: { symbol: long } })).toHaveLength(1)
    const named = (count: number): NativeLibrary =>
      library('/lib.so', Object.fromEntries(Array.from({ length: count }, (_, index) => [`f${index}`, 'raw' as const])))
    expect(choose([named(1024)])).toHaveLength(1024)
    expect(refusal([named(1025)])).toContain('there are 1025 functions, and 1024 are possible')
  })
})

describe('functions of tables', () => {
  const entry = { name: 'total', library: '/libpraas.so', symbol: 'sum', where: 'table: functions.cpp.total' }

  it('have the names the table gives them', () => {
    const offers = [offerOfTable(entry, praas)]
    expect(chooseFunctions(offers, [praas], {})).toMatchObject([{ name: 'total', symbol: 'sum', abi: 'praas' }])
    const functions = { total: { input: 'json' } as const }
    expect(chooseFunctions(offers, [praas], { functions })).toMatchObject([{ name: 'total', flags: 1 << 8 }])
    expect(chooseFunctions(offers, [praas], { functions: { t: { symbol: 'sum' } } })).toMatchObject([{ name: 't' }])
  })

  it('may be offered by their library as well', () => {
    const offers = [...offersOfLibrary(praas), offerOfTable({ ...entry, name: 'sum' }, praas)]
    expect(chooseFunctions(offers, [praas], {})).toHaveLength(1)
  })

  it('have to be in their library', () => {
    expect(() => offerOfTable({ ...entry, symbol: 'none' }, praas)).toThrow(
      'table: functions.cpp.total.code.function: there is no native function none: libpraas.so has sum.',
    )
  })
})
