import { describe, expect, expectTypeOf, it } from 'vitest'
import { ArgumentError } from '../../src/errors.js'
import type { RemoteFunctions } from '../../src/client/stub.js'
import type { Context } from '../../src/function/context.js'
import { defineFunction, traitsOf } from '../../src/function/define.js'
import { collectFunctions, registration } from '../../src/worker/functions.js'

const add = defineFunction({ codec: 'json', idempotent: true }, (input: { a: number; b: number }) => input.a + input.b)
const parse = defineFunction({ input: 'raw', output: 'json' }, async (input: Uint8Array) => ({
  bytes: input.byteLength,
}))
const upper = defineFunction({ stream: true }, async function* (chunks) {
  for await (const chunk of chunks) yield chunk
})
const plain = (input: Uint8Array, _ctx: Context): Uint8Array => input
const _nothing = (): void => undefined

describe('defineFunction', () => {
  it('declares what the worker registers', () => {
    expect(traitsOf(add)).toMatchObject({
      stream: false,
      idempotent: true,
      input: { name: 'json' },
      output: { name: 'json' },
    })
    expect(traitsOf(parse)).toMatchObject({ input: { name: 'raw' }, output: { name: 'json' } })
    expect(traitsOf(upper)).toMatchObject({ stream: true, input: { name: 'raw' } })
    expect(traitsOf(plain)).toMatchObject({ stream: false, idempotent: false, input: { name: 'raw' } })
  })

  it('stays callable as the handler it is', () => {
    expect(add({ a: 1, b: 2 }, undefined as never)).toBe(3)
  })

  it.each([{ codec: 'yaml' }, { stream: true, codec: 'json' }, { idempotant: true }])('refuses %j', (options) => {
    expect(() => defineFunction(options as never, plain)).toThrow(ArgumentError)
  })

  it('wants a function', () => {
    expect(() => defineFunction({}, 5 as never)).toThrow(/expected a function/)
  })
})

describe('the functions of a module', () => {
  it('are registered in one order everywhere, without classes and values', () => {
    class Grid {}
    const functions = collectFunctions({ upper, add, version: 3, Grid, parse, default: plain })
    expect(functions.map(({ name }) => name)).toEqual(['add', 'default', 'parse', 'upper'])
    expect(registration(functions)[3]).toEqual({ name: 'upper', flags: 1 })
  })

  it('must be some, with names that fit', () => {
    expect(() => collectFunctions({ version: 1 })).toThrow('the application exports no function')
    expect(() => collectFunctions({ ['x'.repeat(256)]: plain })).toThrow(/1 … 255 bytes of UTF-8 without NUL/)
  })

  it('have the types of their handlers on the client', () => {
    type Remote = RemoteFunctions<{
      add: typeof add
      parse: typeof parse
      upper: typeof upper
      plain: typeof plain
      nothing: typeof _nothing
      version: number
    }>
    expectTypeOf<Remote>().toHaveProperty('add')
    expectTypeOf<Remote>().not.toHaveProperty('version')
    expectTypeOf<Remote['add']>().parameter(0).toEqualTypeOf<{ a: number; b: number }>()
    expectTypeOf<Remote['add']>().returns.resolves.toEqualTypeOf<number>()
    expectTypeOf<Remote['parse']>().returns.resolves.toEqualTypeOf<{ bytes: number }>()
    expectTypeOf<Remote['plain']>().returns.resolves.toEqualTypeOf<Uint8Array>()
    expectTypeOf<Remote['upper']>().parameter(0).toEqualTypeOf<AsyncIterable<Uint8Array>>()
    expectTypeOf<Remote['nothing']>().returns.resolves.toEqualTypeOf<void>()
  })
})
