import { describe, expect, it } from 'vitest'
import { z } from 'zod'
import { parseProcessOptions, toProcessOptions } from '../src/client/process_options.js'
import { ArgumentError } from '../src/errors.js'
import { checkKnown, checkName, checkTimeout, isName } from '../src/limits.js'
import { duration, integer, parseOptions, size } from '../src/options.js'

const schema = z.object({
  memory: size(1024, 4096).optional(),
  timeoutMs: duration(0, 1000).optional(),
  workers: integer(1, 8).optional(),
  nested: z.object({ flag: z.boolean() }).optional(),
})

function refusal(options: unknown): string {
  try {
    parseOptions(schema, options, 'thing')
  } catch (error) {
    expect(error).toBeInstanceOf(ArgumentError)
    return (error as Error).message
  }
  throw new Error('it was accepted')
}

describe('options', () => {
  it('converts units and leaves out what is absent', () => {
    expect(parseOptions(schema, { memory: '2 KiB', timeoutMs: '0.5 s' }, 'thing')).toEqual({
      memory: 2048,
      timeoutMs: 500,
    })
    expect(parseOptions(schema, undefined, 'thing')).toEqual({})
  })

  it('names unknown options and the known ones', () => {
    expect(refusal({ memroy: 5 })).toBe('thing: unknown option "memroy"; known are memory, timeoutMs, workers, nested')
  })

  it('names unknown options inside others by their place', () => {
    const inner = z.object({ functions: z.record(z.string(), z.strictObject({ symbol: z.string().optional() })) })
    expect(() => parseOptions(inner, { functions: { f: { symbl: 'x' } } }, 'thing')).toThrow(
      'thing: unknown option "functions.f.symbl"',
    )
  })

  it('names option, bounds and value', () => {
    expect(refusal({ memory: '1 MiB' })).toBe('thing: option memory: expected 1024 … 4096 bytes, received "1 MiB"')
    expect(refusal({ memory: 'much' })).toContain('expected bytes or text with a unit, received "much"')
    expect(refusal({ workers: 9 })).toBe('thing: option workers: expected an integer, 1 … 8, received 9')
    expect(refusal({ workers: 1.5 })).toContain('received 1.5')
    expect(refusal({ nested: { flag: 'yes' } })).toContain('option nested.flag')
    expect(refusal(5)).toContain('thing: options')
  })
})

describe('process options', () => {
  it('are converted for the control plane', () => {
    const options = { app: 'app.ts', memory: '8 MiB', maxContiguous: 4096, hotMs: -1, nativeWorkers: 1000 }
    const parsed = parseProcessOptions({ ...options, workerMemory: '64 MiB' }, 'process')
    expect(toProcessOptions(parsed)).toEqual({
      app: `${process.cwd()}/app.ts`,
      memoryBytes: 8 * 2 ** 20,
      maxContiguousBytes: 4096,
      hotMs: -1,
      nativeWorkers: 1000,
      workerMemoryBytes: 2 ** 26,
    })
  })

  it.each([
    { workers: 0 },
    { workers: 1001 },
    { nativeWorkers: 0 },
    { nativeWorkers: 1001 },
    { workerMemory: 2 ** 26 - 1 },
    { workerMemory: '1025 GiB' },
    { concurrency: 1025 },
    { memory: 2 ** 20 - 1 },
    { maxContiguous: 2 ** 32 },
    { maxContiguous: 4095 },
    { leaseWorkers: -1 },
    { leaseWorkers: 1001 },
    { hotMs: -2 },
    { hotMs: 0.5 },
    { backlog: 15 },
    { backlog: 4097 },
    { app: '' },
    { wrong: 1 },
  ])('refuses %j', (options) => {
    expect(() => parseProcessOptions(options, 'process')).toThrow(ArgumentError)
  })

  it('tell names of applications from paths', () => {
    const reference = (app: string | URL): unknown => toProcessOptions(parseProcessOptions({ app }, 'process')).app
    expect(reference('solver')).toBe('solver')
    for (const file of ['solver.so', 'solver.so.1.2', 'solver.json', 'solver.mts']) {
      expect(reference(file)).toBe(`${process.cwd()}/${file}`)
    }
    for (const name of ['solver.so.x', 'also', 'solver.2']) expect(reference(name)).toBe(name)
    expect(reference('./solver')).toBe(`${process.cwd()}/solver`)
    expect(reference(new URL('file:///srv/app.ts'))).toBe('/srv/app.ts')
    expect(reference('file:///srv/app.ts')).toBe('/srv/app.ts')
  })
})

describe('limits', () => {
  it('bound names by bytes, not characters', () => {
    expect(isName('x'.repeat(255))).toBe(true)
    expect(isName('x'.repeat(256))).toBe(false)
    expect(isName('ü'.repeat(127))).toBe(true)
    expect(isName('ü'.repeat(128))).toBe(false)
    expect(isName('')).toBe(false)
    expect(isName('a\0b')).toBe(false)
    expect(isName('\ud800')).toBe(false)
    expect(() => checkName('a key', 5)).toThrow('a key has 1 … 255 bytes of UTF-8 without NUL; received number')
  })

  it('bound times', () => {
    for (const fine of [undefined, 0.001, 1, 604_800_000]) expect(() => checkTimeout('x', fine)).not.toThrow()
    for (const wrong of [0, -1, NaN, Infinity, 604_800_001])
      expect(() => checkTimeout('x', wrong)).toThrow(ArgumentError)
  })

  it('know their options', () => {
    expect(() => checkKnown('x', { a: 1 }, new Set(['a']))).not.toThrow()
    expect(() => checkKnown('x', { b: 1 }, new Set(['a']))).toThrow('x: unknown option "b"; known are a')
  })
})
