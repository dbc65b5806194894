/** A lease while it is held: its workers, how they end and are replaced, and how the lease itself ends. */
import { setTimeout as delay } from 'node:timers/promises'
import { codeOf, errorFromCode, LeaseError, messageOf, WorkerError, type PraasError } from '../errors.js'
import type { NativeLeaseNotice } from '../native/binding.js'
import { fromNative, type CallContext } from '../native/errors.js'
import { abortable } from './abortable.js'
import { LeaseControl } from './lease_control.js'
import { leaseEvents, leaseNotices, type LeaseNotice, type Notices } from './lease_notices.js'
import { LeaseRenewal } from './lease_renewal.js'
import type { Fate, LeaseReport } from './lease_report.js'
import { LeasedWorker, LeasedWorkers } from './leased_workers.js'
import { isLost } from './link.js'
import type { Session } from './session.js'

/** For a worker that has taken the place of another. */
const reconnectMs = 30_000
/** How long a call that has lost its connection waits at most to hear why. */
const maxFateMs = 5_000
/** For what the host knows by heart. */
const reportMs = 30_000
/** What the host itself says of the end of a lease. */
const endCodes: ReadonlySet<string> = new Set(['ERR_LEASE_EXPIRED', 'ERR_LEASE_REVOKED'])
/** What a call fails with when its worker leaves the lease, or has died: the host knows why. */
const vagueCodes: ReadonlySet<string> = new Set(['ERR_LEASE_CLOSED', 'ERR_WORKER_CRASHED', 'ERR_INVOCATION_CANCELLED'])

export interface HeldLease {
  readonly lease: bigint
  readonly ttlMs: number
  /** When its time began at the earliest, on the clock of `monotonicMs`. */
  readonly takenMs: number
  readonly renew: boolean
  readonly workers: LeasedWorker[]
  /** Connects to the worker that has a place now. */
  connect(index: number, timeoutMs: number): Promise<Session>
  readonly onNotice: ((notice: LeaseNotice) => void) | undefined
}

export class LeaseHolding {
  /** The process's own connection, which the lease ends with. */
  readonly session: Session
  readonly control: LeaseControl
  readonly workers: LeasedWorkers
  readonly renewal: LeaseRenewal
  readonly #held: HeldLease
  readonly #notices: Notices
  readonly #fates = new WeakMap<LeasedWorker, Promise<string>>()
  /** Places that are being connected to; true: another worker has taken the place meanwhile. */
  readonly #reconnecting = new Map<number, boolean>()
  #end: { readonly code: string; readonly message: string } | undefined
  #endTold = false
  #forgetSession: () => void = () => undefined
  #whyEnding = ''
  #report: LeaseReport | undefined

  constructor(session: Session, held: HeldLease) {
    this.session = session
    this.#held = held
    this.control = new LeaseControl(session, held.lease)
    this.workers = new LeasedWorkers(held.workers)
    this.renewal = new LeaseRenewal(
      {
        renew: (ttlMs, timeoutMs) => this.control.renew(ttlMs, timeoutMs),
        renewSync: (ttlMs, timeoutMs) => this.control.renewSync(ttlMs, timeoutMs),
        use: () => this.workers.use,
        ended: ({ code, message }) => this.#finish(code, message),
      },
      held.ttlMs,
      held.takenMs,
      held.renew,
    )
    this.#notices = leaseNotices(session)
    for (const worker of held.workers) this.#watch(worker)
    // A connection that lives on must not keep the lease, and what it maps, in memory.
    const forget = session.onEnd((error) => this.#sessionEnded(error))
    if (this.#end) forget()
    else this.#forgetSession = forget
    this.#notices.listen(held.lease, (notice) => this.#noticed(notice))
  }

  get process(): string {
    return this.session.info.process
  }

  /** Why it has ended, as a new error each time; undefined while it lasts. */
  get ended(): PraasError | undefined {
    return this.#end && errorFromCode(this.#end.code, this.#end.message)
  }

  throwIfEnded(): void {
    if (this.#end) throw errorFromCode(this.#end.code, this.#end.message)
  }

  /** What a call to a worker has failed with, for its caller; asks the host when only the connection has ended. */
  async explain(error: unknown, worker: LeasedWorker, functionName: string, waitMs = maxFateMs): Promise<unknown> {
    const context = { process: this.process, function: functionName }
    const known = this.#known(error, worker, context)
    if (known !== undefined) return known
    try {
      return this.#told(error, worker, await this.#fate(worker, waitMs), context)
    } catch (failure) {
      return this.#untold(error, failure)
    }
  }

  explainSync(error: unknown, worker: LeasedWorker, functionName: string, waitMs: number): unknown {
    const context = { process: this.process, function: functionName }
    const known = this.#known(error, worker, context)
    if (known !== undefined) return known
    try {
      return this.#told(error, worker, this.control.fateSync(worker.index, Math.min(waitMs, maxFateMs)), context)
    } catch (failure) {
      return this.#untold(error, failure)
    }
  }

  /** The latest accounting, the last one after the end. */
  async report(): Promise<LeaseReport> {
    if (this.#report) return this.#report
    if (this.session.closed) this.throwIfEnded()
    return this.control.report(reportMs)
  }

  /** Gives the lease back, unless it has ended, and resolves with its last report if there is anybody to ask for it. */
  async close(timeoutMs: number): Promise<LeaseReport | undefined> {
    this.#endTold ||= !this.#end
    this.#finish('ERR_LEASE_CLOSED', `${this.#what} was closed`)
    this.#tellEnd()
    if (this.#report || this.session.closed) return this.#report
    try {
      return (this.#report = await this.control.release(timeoutMs))
    } catch (error) {
      if (isLost(error) || error instanceof LeaseError) return undefined
      throw error
    }
  }

  get #what(): string {
    return `lease ${this.#held.lease} of process ${this.process}`
  }

  /** What needs no question: undefined when only the connection is known to have ended. */
  #known(error: unknown, worker: LeasedWorker, context: CallContext): unknown {
    const translated = fromNative(error, context)
    const code = codeOf(translated) ?? ''
    if (translated instanceof WorkerError && (translated.signal ?? translated.exitCode) !== undefined) {
      this.#died(worker, messageOf(error), translated)
      return translated
    }
    if (endCodes.has(code)) this.#finish(code, messageOf(translated))
    else if (!vagueCodes.has(code) && !(isLost(translated) && worker.session.closed)) return translated
    if (this.#end) return this.ended
    if (worker.death !== undefined) return crash(worker.death, context)
    return undefined
  }

  #told(error: unknown, worker: LeasedWorker, text: string, context: CallContext): unknown {
    const fate = JSON.parse(text) as Fate
    if (fate.ended === 'worker') {
      const crashed = crash(text, context)
      this.#died(worker, text, crashed)
      // It may be the end of the one before: then nobody will say that this one is ready.
      if (this.workers.at(worker.index) === worker) void this.#reconnect(worker.index)
      return crashed
    }
    if (fate.ended === 'lease') this.#finish(fate.code, fate.message)
    if (this.#end) return this.ended
    if (worker.death !== undefined) return crash(worker.death, context)
    if (worker.session.closed && this.workers.at(worker.index) === worker) void this.#reconnect(worker.index)
    return fromNative(error, context)
  }

  /** Nobody could say why the connection has ended. */
  #untold(error: unknown, failure: unknown): unknown {
    if (failure instanceof LeaseError) this.#finish(failure.code, failure.message)
    else if (this.session.closed) this.#sessionEnded(failure)
    return this.ended ?? fromNative(error, { process: this.process })
  }

  /** All that wait at a time share one question, but not its deadline. */
  #fate(worker: LeasedWorker, waitMs: number): Promise<string> {
    let fate = this.#fates.get(worker)
    if (!fate) {
      fate = this.control.fate(worker.index, maxFateMs)
      this.#fates.set(worker, fate)
      fate.catch(() => this.#fates.delete(worker))
    }
    return abortable(fate, AbortSignal.timeout(Math.min(Math.max(Math.ceil(waitMs), 1), maxFateMs)))
  }

  #died(worker: LeasedWorker, detail: string, { signal, exitCode, stderr }: WorkerError): void {
    worker.died(detail, {
      ...(signal === undefined ? {} : { signal }),
      ...(exitCode === undefined ? {} : { exitCode }),
      ...(stderr === undefined ? {} : { stderr }),
    })
  }

  #watch(worker: LeasedWorker): void {
    worker.session.onEnd((error) => {
      if (error && !this.#end) void this.explain(error, worker, '').finally(() => this.workers.changed())
    })
  }

  #noticed(notice: NativeLeaseNotice): void {
    const { event, worker, text } = notice
    switch (event) {
      case leaseEvents.workerEnded: {
        const place = this.workers.at(worker)
        if (!place || this.#end) return
        const crashed = crash(text, {})
        this.#died(place, text, crashed)
        this.#tell({ event: 'workerEnded', worker, exit: place.exit ?? {} })
        return
      }
      case leaseEvents.workerReady:
        if (!this.#end) void this.#reconnect(worker)
        return
      case leaseEvents.ending:
        this.#whyEnding = text
        this.#tell({ event: 'ending', remainingMs: notice.remainingMs, reason: text })
        return
      case leaseEvents.ended:
        this.#report = reportIn(text)
        this.#finish(notice.code || 'ERR_LEASE_CLOSED', this.#endMessage(notice.code))
        this.#tellEnd()
    }
  }

  #endMessage(code: string): string {
    if (code === 'ERR_LEASE_EXPIRED') return `${this.#what} has expired`
    if (code === 'ERR_LEASE_REVOKED') {
      return `${this.#what} was taken back by the process${this.#whyEnding === '' ? '' : `: ${this.#whyEnding}`}`
    }
    return `${this.#what} has ended`
  }

  #sessionEnded(error: unknown): void {
    if (error === undefined) this.#finish('ERR_LEASE_CLOSED', `the connection was closed, and ${this.#what} with it`)
    else
      this.#finish(codeOf(error) ?? 'ERR_HOST_LOST', `${this.#what} has ended with its connection: ${messageOf(error)}`)
    this.#tellEnd()
  }

  #finish(code: string, message: string): void {
    if (this.#end) return
    this.#end = { code, message }
    this.#forgetSession()
    this.renewal.stop()
    this.workers.close()
  }

  #tellEnd(): void {
    this.#notices.forget(this.#held.lease)
    const error = this.ended
    if (this.#endTold || !error) return
    this.#endTold = true
    this.#tell({ event: 'ended', error, report: this.#report })
  }

  #tell(notice: LeaseNotice): void {
    this.#held.onNotice?.(notice)
  }

  /** Connects to the worker that has a place now. */
  async #reconnect(index: number): Promise<void> {
    if (this.#reconnecting.has(index)) {
      this.#reconnecting.set(index, true)
      return
    }
    const deadline = performance.now() + reconnectMs
    for (let pauseMs = 10; !this.#end && performance.now() < deadline; pauseMs = Math.min(pauseMs * 2, 500)) {
      this.#reconnecting.set(index, false)
      try {
        const session = await this.#held.connect(index, deadline - performance.now())
        if (!this.#end && this.#reconnecting.get(index) !== true) {
          this.#reconnecting.delete(index)
          return await this.#adopt(index, session)
        }
        session.close()
      } catch (error) {
        // Unavailable: it is still being replaced.
        if (error instanceof LeaseError && error.code !== 'ERR_LEASE_UNAVAILABLE') {
          this.#finish(error.code, error.message)
        }
      }
      await delay(pauseMs, undefined, { ref: false })
    }
    this.#reconnecting.delete(index)
  }

  async #adopt(index: number, session: Session): Promise<void> {
    const worker = new LeasedWorker(index, 0, session)
    this.workers.replace(worker)
    this.#watch(worker)
    try {
      const { perWorker } = await this.control.report(reportMs)
      worker.pid = perWorker.find((reported) => reported.worker === index)?.pid ?? 0
    } catch {
      // The lease has ended; whoever uses it hears of that.
    }
    if (!this.#end) this.#tell({ event: 'workerReady', worker: index })
  }
}

/** The error of a worker's end as the host tells it. */
function crash(detail: string, context: CallContext): WorkerError {
  return fromNative(Object.assign(new Error(detail), { code: 'ERR_WORKER_CRASHED' }), context) as WorkerError
}

/** The last account of a lease; none when its host says something else. */
function reportIn(text: string): LeaseReport | undefined {
  try {
    return JSON.parse(text) as LeaseReport
  } catch {
    return undefined
  }
}
