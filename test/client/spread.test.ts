import { describe, expect, it } from 'vitest'
import { spread, type SpreadDone, type SpreadOver, type SpreadResult } from '../../src/client/spread.js'
import { ArgumentError } from '../../src/errors.js'

/** Workers that take the time they are said to, on a clock that only moves when everybody waits. */
class Simulation implements SpreadOver {
  readonly began: { input: unknown; worker: number; atMs: number }[] = []
  readonly aborted: unknown[] = []
  #nowMs = 0
  readonly #workerMs: readonly number[]
  readonly #queues: number[]
  #events: { atMs: number; run: () => void }[] = []
  #driving = false
  #activity = 0
  #activityThen = 0
  #idle = 0

  constructor(workerMs: readonly number[]) {
    this.#workerMs = workerMs
    this.#queues = workerMs.map(() => 0)
  }

  now(): number {
    return this.#nowMs
  }

  workers(): number {
    return this.#workerMs.length
  }

  inFlight = 0
  mostInFlight = 0

  /** The least busy takes it, and answers in turn. */
  invoke(input: unknown, { signal }: { signal?: AbortSignal }): Promise<SpreadDone> {
    const lengths = this.#queues.map((freeMs) => Math.max(freeMs, this.#nowMs))
    const worker = lengths.indexOf(Math.min(...lengths))
    const atMs = Math.max(this.#queues[worker] ?? 0, this.#nowMs)
    const doneMs = atMs + (this.#workerMs[worker] ?? 0)
    this.#queues[worker] = doneMs
    this.#activity++
    this.began.push({ input, worker, atMs })
    this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight)
    return new Promise((resolve, reject) => {
      signal?.addEventListener('abort', () => {
        this.aborted.push(input)
        reject(signal.reason as Error)
      })
      this.#events.push({
        atMs: doneMs,
        run: () => {
          this.inFlight--
          if (input === 'fails') reject(new Error('failed'))
          else resolve({ output: `r${String(input)}`, worker })
        },
      })
      this.#drive()
    })
  }

  /** This thread computes: time goes by, and what ends meanwhile is heard of afterwards. */
  compute(milliseconds: number): void {
    this.#activity++
    this.#nowMs += milliseconds
  }

  #drive(): void {
    if (this.#driving) return
    this.#driving = true
    setImmediate(() => {
      this.#driving = false
      const nextMs = Math.min(...this.#events.map(({ atMs }) => atMs))
      this.#idle = this.#activity === this.#activityThen ? this.#idle + 1 : 0
      this.#activityThen = this.#activity
      // Nobody computes or begins anything in several turns: all wait.
      if (this.#idle > 3) this.#nowMs = Math.max(this.#nowMs, nextMs)
      const due = this.#events.filter(({ atMs }) => atMs <= this.#nowMs)
      this.#events = this.#events.filter(({ atMs }) => atMs > this.#nowMs)
      if (due.length > 0) this.#activity++
      for (const { run } of due) run()
      if (this.#events.length > 0) this.#drive()
    })
  }
}

const numbers = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

async function collect(
  over: SpreadOver,
  inputs: Iterable<unknown> | AsyncIterable<unknown>,
  options = {},
): Promise<unknown[]> {
  const collected: unknown[] = []
  for await (const item of spread(over, inputs, options)) collected.push(item)
  return collected
}

/** How many inputs each has computed. */
function shares(results: unknown[]): Map<number | 'local', number> {
  const counts = new Map<number | 'local', number>()
  for (const { worker } of results as SpreadResult<unknown>[]) counts.set(worker, (counts.get(worker) ?? 0) + 1)
  return counts
}

describe('calls that are spread', () => {
  it('give results in the order of inputs, or with who has computed them', async () => {
    const inputs = numbers(50)
    expect(await collect(new Simulation([3, 1]), inputs)).toEqual(inputs.map((input) => `r${input}`))
    const results = (await collect(new Simulation([3, 1]), inputs, { ordered: false })) as SpreadResult<string>[]
    expect(results.map(({ index }) => index).sort((a, b) => a - b)).toEqual(inputs)
    for (const { index, output } of results) expect(output).toBe(`r${index}`)
    expect(await collect(new Simulation([1]), [])).toEqual([])
  })

  it.each([true, false])('go to who is faster, ordered: %s', async (ordered) => {
    const over = new Simulation([1, 4])
    await collect(over, numbers(100), { ordered })
    const fast = over.began.filter(({ worker }) => worker === 0).length
    expect(fast).toBeGreaterThan(70)
    expect(over.now()).toBeLessThan(90)
  })

  it('are at most as many at a time as asked for', async () => {
    const over = new Simulation([1, 1, 1])
    await collect(over, numbers(40), { inFlight: 4 })
    expect(over.mostInFlight).toBe(12)
    const fewer = new Simulation([1, 1, 1])
    await collect(fewer, numbers(40))
    expect(fewer.mostInFlight).toBe(6)
  })

  it('leave this thread the share that its speed allows', async () => {
    const over = new Simulation([10, 10])
    const local = (input: unknown): string => {
      over.compute(5)
      return `r${String(input)}`
    }
    const counts = shares(await collect(over, numbers(100), { ordered: false, local }))
    // Two workers of speed 1 and this thread of speed 2.
    expect(counts.get('local')).toBeGreaterThan(40)
    expect(counts.get('local')).toBeLessThan(60)
    expect(over.now()).toBeLessThan(100 * 2.5 * 1.25)
  })

  it('leave a slow thread next to nothing, and do not wait for it at the end', async () => {
    const over = new Simulation([1, 1])
    const local = (input: unknown): string => {
      over.compute(40)
      return `r${String(input)}`
    }
    const counts = shares(await collect(over, numbers(200), { ordered: false, local }))
    expect(counts.get('local') ?? 0).toBeLessThanOrEqual(4)
    expect(over.now()).toBeLessThan(100 + 2 * 40)
  })

  it('keep workers busy while this thread computes', async () => {
    const over = new Simulation([1, 1])
    const local = (input: unknown): string => {
      over.compute(20)
      return `r${String(input)}`
    }
    const results = await collect(over, numbers(1_000), { ordered: false, local })
    expect(over.mostInFlight).toBeGreaterThan(20)
    // 2.05 per millisecond at best.
    expect(over.now()).toBeLessThan(600)
    expect(results).toHaveLength(1_000)
  })

  it('take results of a local function that are promises, and its failures', async () => {
    const over = new Simulation([5])
    const local = async (input: unknown): Promise<string> => `r${String(input)}`
    expect(await collect(over, numbers(30), { local })).toEqual(numbers(30).map((input) => `r${input}`))
    const failing = (): never => {
      throw new RangeError('mine')
    }
    await expect(collect(new Simulation([5]), numbers(30), { local: failing })).rejects.toThrow('mine')
    await expect(collect(new Simulation([5]), numbers(30), { local: async () => failing() })).rejects.toThrow('mine')
  })

  it('end with the first failure, in its turn, and are cancelled then', async () => {
    const over = new Simulation([1, 1])
    const results: unknown[] = []
    const failing = async (): Promise<void> => {
      for await (const result of spread(over, [0, 1, 'fails', 3, 4, 5, 6, 7, 8, 9], {})) results.push(result)
    }
    await expect(failing()).rejects.toThrow('failed')
    expect(results).toEqual(['r0', 'r1'])
    expect(over.began.length).toBeLessThan(10)
  })

  it('are cancelled when the loop is left, and the inputs closed', async () => {
    const over = new Simulation([1, 1])
    let closed = false
    function* inputs(): Generator<number> {
      try {
        for (let input = 0; ; input++) yield input
      } finally {
        closed = true
      }
    }
    for await (const result of spread(over, inputs(), {})) if (result === 'r5') break
    expect(closed).toBe(true)
    expect(over.aborted.length).toBeGreaterThan(0)
  })

  it('take inputs as they come, and their failure', async () => {
    async function* inputs(): AsyncGenerator<number> {
      for (let input = 0; input < 20; input++) {
        await new Promise(setImmediate)
        yield input
      }
    }
    expect(await collect(new Simulation([1, 2]), inputs())).toHaveLength(20)
    async function* failing(): AsyncGenerator<number> {
      yield 0
      await new Promise(setImmediate)
      throw new Error('no more')
    }
    await expect(collect(new Simulation([1]), failing())).rejects.toThrow('no more')
  })

  it('finish what lies before the failure of their inputs, also what was taken ahead for this thread', async () => {
    const over = new Simulation([1])
    const local = (input: unknown): unknown => {
      over.compute(20)
      return `l${String(input)}`
    }
    function* failing(): Generator<number> {
      for (let input = 0; input < 200; input++) yield input
      throw new Error('no more')
    }
    const results: unknown[] = []
    await expect(
      (async () => {
        for await (const result of spread(over, failing(), { local })) results.push(result)
      })(),
    ).rejects.toThrow('no more')
    expect(results).toHaveLength(200)
  })

  it('do not take more inputs than they have a use for', async () => {
    let taken = 0
    function* inputs(): Generator<number> {
      for (; taken < 10_000; taken++) yield taken
    }
    for await (const result of spread(new Simulation([1, 1]), inputs(), {})) {
      expect(taken).toBeLessThan(40)
      if (result === 'r9') break
    }
  })

  it('end with an abort while their inputs have nothing to say', async () => {
    async function* silent(): AsyncGenerator<number> {
      await new Promise(() => undefined)
      yield 0
    }
    const abort = new AbortController()
    const next = spread(new Simulation([1]), silent(), { signal: abort.signal }).next()
    abort.abort(new Error('enough'))
    await expect(next).rejects.toThrow('enough')
    const again = spread(new Simulation([1]), silent(), { signal: abort.signal }).next()
    await expect(again).rejects.toThrow('enough')
  })

  it('do not wait for inputs that have nothing to say when the loop is left, and take none of them', async () => {
    let speak = (): void => undefined
    async function* inputs(): AsyncGenerator<number> {
      yield 1
      await new Promise<void>((resolve) => (speak = resolve))
      yield 2
    }
    const over = new Simulation([1])
    const source = inputs()
    for await (const result of spread(over, source, {})) {
      expect(result).toBe('r1')
      break
    }
    speak()
    expect(await source.next()).toEqual({ done: true, value: undefined })
    expect(over.began).toHaveLength(1)
  })

  it('refuse options that are wrong', async () => {
    for (const options of [{ inFlight: 0 }, { inFlight: 65_537 }, { wrong: 1 }, { local: 5 }]) {
      await expect(collect(new Simulation([1]), [1], options)).rejects.toThrow(ArgumentError)
    }
  })
})
