import { describe, expect, it } from 'vitest'
import type { InvokeOptions } from '../../src/client/call.js'
import { invokeMany } from '../../src/client/many.js'
import { ArgumentError } from '../../src/errors.js'

/** Calls that finish when the test says so. */
function controlled(): {
  invoke: (input: unknown, options: InvokeOptions) => Promise<unknown>
  finish: (input: unknown) => void
  started: unknown[]
  aborted: unknown[]
} {
  const started: unknown[] = []
  const aborted: unknown[] = []
  const waiting = new Map<unknown, (value: unknown) => void>()
  return {
    started,
    aborted,
    finish: (input) => waiting.get(input)?.(`result ${String(input)}`),
    invoke: (input, { signal }) => {
      started.push(input)
      return new Promise((resolve, reject) => {
        waiting.set(input, resolve)
        signal?.addEventListener('abort', () => {
          aborted.push(input)
          reject(signal.reason as Error)
        })
      })
    },
  }
}

const immediate = async (input: unknown): Promise<unknown> => Number(input) * 2

async function collect<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const collected: Item[] = []
  for await (const item of items) collected.push(item)
  return collected
}

/** Says no more after these, and does not end. */
async function* silentAfter(...inputs: unknown[]): AsyncGenerator {
  yield* inputs
  await new Promise(() => undefined)
}

describe('invokeMany', () => {
  it('yields results in the order of the inputs', async () => {
    expect(await collect(invokeMany(immediate, [1, 2, 3], { inFlight: 2 }))).toEqual([2, 4, 6])
    expect(await collect(invokeMany(immediate, [], {}))).toEqual([])
  })

  it('takes inputs from generators as calls finish', async () => {
    const calls = controlled()
    let taken = 0
    async function* inputs(): AsyncGenerator<number> {
      for (; taken < 5;) yield taken++
    }
    const results = invokeMany(calls.invoke, inputs(), { inFlight: 2 })
    const first = results.next()
    await expect.poll(() => calls.started).toEqual([0, 1])
    expect(taken).toBe(2)
    calls.finish(1)
    calls.finish(0)
    expect((await first).value).toBe('result 0')
    expect((await results.next()).value).toBe('result 1')
    await results.return(undefined)
  })

  it('yields results as they come, with the number of their input', async () => {
    const calls = controlled()
    const results = invokeMany(calls.invoke, ['a', 'b'], { ordered: false })
    const first = results.next()
    await expect.poll(() => calls.started.length).toBe(2)
    calls.finish('b')
    expect((await first).value).toEqual({ index: 1, output: 'result b' })
    calls.finish('a')
    expect((await results.next()).value).toEqual({ index: 0, output: 'result a' })
    expect((await results.next()).done).toBe(true)
  })

  it('cancels the others when one fails', async () => {
    const calls = controlled()
    const failing = async (input: unknown, options: InvokeOptions): Promise<unknown> => {
      if (input === 1) throw new Error('one failed')
      return calls.invoke(input, options)
    }
    await expect(collect(invokeMany(failing, [0, 1, 2], { ordered: false }))).rejects.toThrow('one failed')
    expect(calls.aborted).toEqual([0, 2])
  })

  it('cancels what is in flight and closes the inputs when the loop is left', async () => {
    const calls = controlled()
    let closed = false
    function* inputs(): Generator<number> {
      try {
        for (let index = 0; ; index++) yield index
      } finally {
        closed = true
      }
    }
    const results = invokeMany(calls.invoke, inputs(), { inFlight: 3 })
    const first = results.next()
    calls.finish(0)
    await expect.poll(() => calls.started.length).toBe(3)
    calls.finish(0)
    await first
    await results.return(undefined)
    expect(closed).toBe(true)
    expect(calls.aborted).toContain(1)
  })

  it('ends with the reason of an abort', async () => {
    const calls = controlled()
    const abort = new AbortController()
    const results = invokeMany(calls.invoke, [1], { signal: abort.signal })
    const next = results.next()
    await expect.poll(() => calls.started.length).toBe(1)
    abort.abort(new Error('enough'))
    await expect(next).rejects.toThrow('enough')
  })

  it.each([true, false])('yields results that its inputs wait for, ordered: %s', async (ordered) => {
    const seen: unknown[] = []
    let yielded = (): void => undefined
    async function* inputs(): AsyncGenerator<number> {
      for (let input = 1; input < 100; input *= 2) {
        const result = new Promise<void>((resolve) => (yielded = resolve))
        yield input
        await result
      }
    }
    for await (const result of invokeMany(immediate, inputs(), { ordered })) {
      seen.push(ordered ? result : (result as { output: unknown }).output)
      yielded()
    }
    expect(seen).toEqual([2, 4, 8, 16, 32, 64, 128])
  })

  it('fails with a call while its inputs have nothing to say', async () => {
    const failing = async (): Promise<unknown> => {
      throw new Error('one failed')
    }
    await expect(collect(invokeMany(failing, silentAfter(1), {}))).rejects.toThrow('one failed')
  })

  it.each([{ inputs: [] }, { inputs: [1] }])(
    'ends with an abort when nothing comes after $inputs',
    async ({ inputs }) => {
      const calls = controlled()
      const abort = new AbortController()
      const next = invokeMany(calls.invoke, silentAfter(...inputs), { signal: abort.signal }).next()
      await expect.poll(() => calls.started).toEqual(inputs)
      abort.abort(new Error('enough'))
      await expect(next).rejects.toThrow('enough')
      const again = invokeMany(calls.invoke, silentAfter(), { signal: abort.signal }).next()
      await expect(again).rejects.toThrow('enough')
    },
  )

  it('does not wait for inputs that have nothing to say when the loop is left, and takes none of them', async () => {
    const calls = controlled()
    let speak = (): void => undefined
    async function* inputs(): AsyncGenerator<number> {
      yield 1
      await new Promise<void>((resolve) => (speak = resolve))
      yield 2
    }
    const source = inputs()
    const results = invokeMany(calls.invoke, source, {})
    const first = results.next()
    await expect.poll(() => calls.started).toEqual([1])
    calls.finish(1)
    await first
    await results.return(undefined)
    speak()
    expect(await source.next()).toEqual({ done: true, value: undefined })
    expect(calls.started).toEqual([1])
  })

  it('yields results of what lies before the failure of its inputs', async () => {
    async function* failing(): AsyncGenerator<number> {
      yield 1
      yield 2
      throw new Error('no more')
    }
    const results = invokeMany(immediate, failing(), {})
    expect(await results.next()).toEqual({ done: false, value: 2 })
    expect(await results.next()).toEqual({ done: false, value: 4 })
    await expect(results.next()).rejects.toThrow('no more')
  })

  it.each([{ inFlight: 0 }, { inFlight: 1.5 }, { inFlight: 65_537 }, { inflight: 1 }])(
    'refuses %j',
    async (options) => {
      await expect(collect(invokeMany(immediate, [1], options as never))).rejects.toThrow(ArgumentError)
    },
  )

  it('wants an iterable', async () => {
    await expect(collect(invokeMany(immediate, 5 as never, {}))).rejects.toThrow(ArgumentError)
  })
})
