/** Where the time of a computation goes. */
import { performance } from 'node:perf_hooks'
import type { LeaseReport } from 'praas'

/** Adds up the time between switches from one activity to another. */
export class Stopwatch<Activity extends string> {
  readonly #times = new Map<Activity, number>()
  #activity: Activity | undefined
  #since = 0

  /**
   * Begins an activity, or with none ends the last.
   *
   * @returns what went on before, to be switched back to
   */
  to(activity?: Activity): Activity | undefined {
    const [before, now] = [this.#activity, performance.now()]
    if (before !== undefined) this.#times.set(before, this.ms(before) + now - this.#since)
    this.#activity = activity
    this.#since = now
    return before
  }

  /** Of an activity that is over. */
  ms(activity: Activity): number {
    return this.#times.get(activity) ?? 0
  }

  /** Of all of them that are over. */
  get totalMs(): number {
    return [...this.#times.values()].reduce((sum, ms) => sum + ms, 0)
  }

  toString(): string {
    return [...this.#times].map(([activity, ms]) => `${ms.toFixed(1)} ms ${activity}`).join(', ')
  }
}

/** What the workers of a lease did between two looks at its accounting. */
export function between(before: LeaseReport, after: LeaseReport): WorkerShare[] {
  return after.perWorker.map((now) => {
    const then = before.perWorker.find(({ worker }) => worker === now.worker)
    const executionMs = (now.executionNs - (then?.executionNs ?? 0)) / 1e6
    const pollingMs = (now.pollingNs - (then?.pollingNs ?? 0)) / 1e6
    const allocatedMs = (now.allocatedNs - (then?.allocatedNs ?? 0)) / 1e6
    return {
      worker: now.worker,
      calls: now.calls - (then?.calls ?? 0),
      executionMs,
      pollingMs,
      asleepMs: Math.max(0, allocatedMs - executionMs - pollingMs),
    }
  })
}

export interface WorkerShare {
  readonly worker: number
  readonly calls: number
  /** In functions. */
  readonly executionMs: number
  /** Awake and in no function. */
  readonly pollingMs: number
  /** Neither; with what it takes to start when one was replaced. */
  readonly asleepMs: number
}

/** Who did how much of it. */
export interface Parts {
  readonly here: number
  readonly workers: readonly number[]
  readonly total: number
}

/** Where the time went, here and in the workers, next to who did how much. */
export function printSplit(here: Stopwatch<string>, workers: readonly WorkerShare[], parts: Parts): void {
  const percent = (part: number): string => `${((100 * part) / parts.total).toFixed(0)} %`
  console.log(`here, ${percent(parts.here)} of the work: ${here.toString()}`)
  console.table(
    workers.map(({ worker, calls, executionMs, pollingMs, asleepMs }) => ({
      worker,
      'of the work': percent(parts.workers[worker] ?? 0),
      calls,
      'execution ms': Number(executionMs.toFixed(1)),
      'polling ms': Number(pollingMs.toFixed(1)),
      'asleep ms': Number(asleepMs.toFixed(1)),
    })),
  )
}

/** Times of the same computation, the first of them the serial one. */
export function printTimes(times: readonly (readonly [who: string, ms: number])[]): void {
  const serialMs = times[0]?.[1] ?? NaN
  console.table(
    times.map(([who, ms]) => ({ who, ms: Number(ms.toFixed(1)), 'speed-up': Number((serialMs / ms).toFixed(2)) })),
  )
}

/** What calls take beyond the execution of their function, when one worker gets one call after the other. */
export function printOverhead(ms: number, [share]: readonly WorkerShare[]): void {
  if (!share) return
  const overheadMs = ms - share.executionMs
  const perCall = ((1e3 * overheadMs) / share.calls).toFixed(1)
  console.log(
    `transfer and calls: ${overheadMs.toFixed(1)} of the ${ms.toFixed(1)} ms of one leased worker alone, ` +
      `${perCall} µs for each of ${share.calls} calls`,
  )
}
