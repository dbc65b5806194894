import { describe, expect, it } from 'vitest'
import { describeThrown } from '../../src/worker/failure.js'

function described(thrown: unknown): Record<string, unknown> {
  return JSON.parse(describeThrown(thrown)) as Record<string, unknown>
}

describe('describeThrown', () => {
  it('keeps name, message, code and stack of errors', () => {
    const error = Object.assign(new RangeError('too far'), { code: 'E_FAR' })
    expect(described(error)).toMatchObject({ name: 'RangeError', message: 'too far', code: 'E_FAR' })
    expect(described(error)['stack']).toContain('failure.test.ts')
  })

  it('adds the stacks of causes, also when they go in circles', () => {
    const inner = new Error('inner')
    const outer = new Error('outer', { cause: inner })
    inner.cause = outer
    expect(described(outer)['stack']).toMatch(/outer[^]*caused by: Error: inner/)
  })

  it.each([
    ['text', { name: 'string', message: 'text' }],
    [5, { name: 'number', message: '5' }],
    [undefined, { name: 'undefined', message: 'undefined' }],
    [null, { name: 'null', message: 'null' }],
    [Symbol('s'), { name: 'symbol', message: 'Symbol(s)' }],
    [
      { name: 'Like', message: 'an error' },
      { name: 'Like', message: 'an error' },
    ],
  ])('describes %s', (thrown, expected) => {
    expect(described(thrown)).toEqual(expected)
  })

  it('survives values that do not want to be described', () => {
    const hostile = new Proxy(
      {},
      {
        has: () => true,
        get: () => {
          throw new Error('no')
        },
      },
    )
    expect(described(hostile)['message']).toContain('cannot be described')
    expect(described(Object.create(null))['message']).toContain('cannot be described')
  })

  it('shortens what is too long, and stays JSON', () => {
    for (const character of ['x', 'ü', '\u0000', '\ud800']) {
      const json = describeThrown(new RangeError(character.repeat(100_000)))
      expect(Buffer.byteLength(json)).toBeLessThan(64 * 1024)
      const { name, message, stack } = JSON.parse(json) as Record<string, string>
      expect(name).toBe('RangeError')
      expect(message?.startsWith(character)).toBe(true)
      expect(message?.endsWith('…')).toBe(true)
      expect(stack).toContain('failure.test.ts')
    }
  })

  it('bounds stacks', () => {
    const error = new Error('long')
    error.stack = 'x\n'.repeat(100_000)
    expect(describeThrown(error).length).toBeLessThan(100_000)
  })
})
