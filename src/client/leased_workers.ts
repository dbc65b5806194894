/** The workers of a lease and which of them takes the next call. */
import type { WorkerExit } from '../errors.js'
import { FormerSessions } from './former_sessions.js'
import type { Session } from './session.js'

/** A worker of a lease, for lists. */
export interface LeasedWorkerInfo {
  /** From 0. */
  readonly worker: number
  readonly pid: number
  readonly transport: string
  /** Takes calls: it lives, and is connected. */
  readonly alive: boolean
  /** How it has ended, when its place is still empty. */
  readonly exit?: WorkerExit
  /** That this handle has made since the worker has the place. */
  readonly calls: number
  readonly inFlight: number
}

/** One OS process that has a place in a lease, and the connection to it. */
export class LeasedWorker {
  readonly index: number
  readonly session: Session
  pid: number
  /** How it has ended: as the host has told it, and as errors say it. */
  death: string | undefined
  exit: WorkerExit | undefined
  calls = 0
  inFlight = 0
  /** When `invokeSync` was called last. */
  readonly calledMs: Float64Array

  constructor(index: number, pid: number, session: Session) {
    this.index = index
    this.pid = pid
    this.session = session
    this.calledMs = session.connection.calledMs
  }

  get alive(): boolean {
    return this.death === undefined && !this.session.closed
  }

  /** It takes no calls any more, whatever its connection says. */
  died(detail: string, exit: WorkerExit): void {
    this.death ??= detail
    this.exit ??= exit
  }
}

export class LeasedWorkers {
  readonly #workers: LeasedWorker[]
  /** Whose workers have ended, while their memory may be in use: calls are repeated with it. */
  readonly #former = new FormerSessions()
  #waiting: (() => void)[] = []
  /** Where the search for the least busy begins: at the worker that has finished a call last. */
  #cursor = 0
  /** No worker has fewer calls in flight. */
  #least = 0

  constructor(workers: LeasedWorker[]) {
    this.#workers = workers
  }

  get count(): number {
    return this.#workers.length
  }

  /** Calls made, ever changing while they are; and whether some are in flight. */
  get use(): { readonly calls: number; readonly busy: boolean } {
    let calls = 0
    let busy = false
    for (const worker of this.#workers) {
      calls += worker.calls
      busy ||= worker.inFlight > 0
    }
    return { calls, busy }
  }

  /** That take calls. */
  get alive(): number {
    return this.#workers.reduce((count, { alive }) => count + (alive ? 1 : 0), 0)
  }

  at(index: number): LeasedWorker | undefined {
    return this.#workers[index]
  }

  /** One of the least busy that take calls. Usually the first that is looked at. */
  pick(): LeasedWorker | undefined {
    const workers = this.#workers
    for (;;) {
      let fewest = Infinity
      for (let step = 0; step < workers.length; step++) {
        const worker = workers[this.#cursor]
        if (worker?.alive === true) {
          if (worker.inFlight <= this.#least) return worker
          if (worker.inFlight < fewest) fewest = worker.inFlight
        }
        this.#cursor = this.#cursor + 1 < workers.length ? this.#cursor + 1 : 0
      }
      if (fewest === Infinity) return undefined
      this.#least = fewest
    }
  }

  begin(worker: LeasedWorker): void {
    worker.calls++
    worker.inFlight++
  }

  finish(worker: LeasedWorker): void {
    if (--worker.inFlight > this.#least) return
    this.#least = worker.inFlight
    this.#cursor = worker.index
  }

  /** Another OS process has the place of an earlier one. */
  replace(worker: LeasedWorker): void {
    const before = this.#workers[worker.index]
    this.#workers[worker.index] = worker
    this.#least = 0
    if (before) this.#former.add(before.session)
    this.changed()
  }

  /** Resolves when something about workers has changed. */
  nextChange(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  changed(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const resolve of waiting) resolve()
  }

  close(): void {
    for (const { session } of this.#workers) session.close()
    this.#former.close()
    this.changed()
  }

  list(): LeasedWorkerInfo[] {
    return this.#workers.map((worker) => ({
      worker: worker.index,
      pid: worker.pid,
      transport: worker.session.way.transport,
      alive: worker.alive,
      ...(worker.exit ? { exit: worker.exit } : {}),
      calls: worker.calls,
      inFlight: worker.inFlight,
    }))
  }
}
