/** What can be measured: an operation that runs in batches when asked, so that several can take turns in one run. */

/** The recorded part of one batch. */
export interface Batch {
  readonly elapsedNs: number
  /** Of each operation, nanoseconds. */
  readonly timesNs: Float64Array
}

/** Runs one operation in batches. Between them it uses no CPU, but for `quietMs` after the end of each. */
export interface Sampler extends AsyncDisposable {
  readonly quietMs: number
  /** Runs an unrecorded warm-up, then `count` recorded operations. */
  run(count: number): Promise<Batch>
}

export interface OperationOptions {
  /** Unrecorded operations before a batch of `count`. */
  readonly warmUp: (count: number) => number
  /** Default: 0. */
  readonly quietMs?: number
  /** Releases what the operation used. */
  readonly close?: () => void | Promise<void>
}

/**
 * Operations before a batch that are not recorded, as many as praas-floor and praas-bench-client have: a tenth of it, at
 * least 100 of up to 64 KiB, and fewer of larger ones, which mostly need their memory touched once.
 */
export function warmUpOf(bytes: number): (count: number) => number {
  const least = Math.max(2, Math.floor((100 * 65_536) / Math.max(bytes, 65_536)))
  return (count) => Math.max(Math.floor(count / 10), least)
}

/** Longest time for a batch, milliseconds: that of praas-floor and praas-bench-client. */
export const batchMs = 120_000

const nsPerMs = 1e6

/**
 * Collects one batch. There is one reading of the clock per operation, so a time is that between two completions.
 * `performance.now()` has nanoseconds below its decimal point, and costs no more than `process.hrtime.bigint()`.
 */
export class Stopwatch {
  readonly #times: Float64Array
  readonly #begin = performance.now()
  #last = this.#begin
  #count = 0

  constructor(count: number) {
    this.#times = new Float64Array(count)
  }

  /** An operation has completed. */
  lap(): void {
    const now = performance.now()
    this.#times[this.#count++] = (now - this.#last) * nsPerMs
    this.#last = now
  }

  /** An operation that began at `began`, a reading of `performance.now()`, has completed. @returns the time of now. */
  since(began: number): number {
    const now = performance.now()
    this.#times[this.#count++] = (now - began) * nsPerMs
    this.#last = now
    return now
  }

  /** What comes now is not measured; the clock goes on with `resume`. Only for operations one after the other. */
  resume(): void {
    this.#last = performance.now()
  }

  batch(): Batch {
    return { elapsedNs: (this.#last - this.#begin) * nsPerMs, timesNs: this.#times.subarray(0, this.#count) }
  }
}

/** A batch of operations with pauses between them: its time is the sum of theirs. */
export function batchOf(timesNs: Float64Array): Batch {
  return { elapsedNs: timesNs.reduce((sum, time) => sum + time, 0), timesNs }
}

/** An operation that blocks. */
export function blockingSampler(operation: () => void, options: OperationOptions): Sampler {
  return sampler(options, async (count) => {
    for (let left = options.warmUp(count); left > 0; left--) operation()
    const watch = new Stopwatch(count)
    for (let left = count; left > 0; left--) {
      operation()
      watch.lap()
    }
    return watch.batch()
  })
}

/** An operation that is awaited, one at a time. */
export function awaitingSampler(operation: () => Promise<unknown>, options: OperationOptions): Sampler {
  return sampler(options, async (count) => {
    for (let left = options.warmUp(count); left > 0; left--) await operation()
    const watch = new Stopwatch(count)
    for (let left = count; left > 0; left--) {
      await operation()
      watch.lap()
    }
    return watch.batch()
  })
}

/** An operation that is awaited, `inFlight` at a time. */
export function concurrentSampler(
  operation: () => Promise<unknown>,
  inFlight: number,
  options: OperationOptions,
): Sampler {
  const runAll = async (count: number): Promise<Batch> => {
    const watch = new Stopwatch(count)
    let left = count
    const lane = async (): Promise<void> => {
      let began = performance.now()
      while (left-- > 0) {
        await operation()
        began = watch.since(began)
      }
    }
    await Promise.all(Array.from({ length: inFlight }, lane))
    return watch.batch()
  }
  return sampler(options, async (count) => {
    await runAll(Math.max(options.warmUp(count), inFlight))
    return runAll(count)
  })
}

/** A generator that takes inputs and yields as many results in their order. */
export function generatorSampler(
  generate: (inputs: Iterable<undefined>) => AsyncIterable<unknown>,
  options: OperationOptions,
): Sampler {
  const runAll = async (count: number): Promise<Batch> => {
    const began: number[] = []
    function* inputs(): Generator<undefined> {
      for (let left = count; left > 0; left--) {
        began.push(performance.now())
        yield undefined
      }
    }
    const watch = new Stopwatch(count)
    let index = 0
    for await (const _ of generate(inputs())) watch.since(began[index++] ?? 0)
    return watch.batch()
  }
  return sampler(options, async (count) => {
    await runAll(options.warmUp(count))
    return runAll(count)
  })
}

/** A sampler of any batches. */
export function sampler(
  { quietMs = 0, close }: Pick<OperationOptions, 'quietMs' | 'close'>,
  run: (count: number) => Promise<Batch>,
): Sampler {
  return { quietMs, run, [Symbol.asyncDispose]: async () => close?.() }
}
