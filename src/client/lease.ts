/** Workers of a process that a client has for itself, and reaches without a hop. */
import { monotonicMs } from '../clock.js'
import { ArgumentError, InvocationError, LeaseError, type PraasError } from '../errors.js'
import { maxTimeoutMs } from '../limits.js'
import {
  callOnce,
  checkInvokeOptions,
  codecsOf,
  invokeOptions,
  isIdempotent,
  isWorkerDeath,
  maxWorkerDeaths,
  noOptions,
  streamMismatch,
  type InvokeOptions,
} from './call.js'
import { abortable, maxTimerMs } from './abortable.js'
import type { LeaseHolding } from './lease_holding.js'
import type { LeasePhases, LeaseReport } from './lease_report.js'
import type { LeasedWorker, LeasedWorkerInfo } from './leased_workers.js'
import { isLost } from './link.js'
import { allocateFrom, releaseTo } from './memory.js'
import { callFlags, type RemoteFunction } from './session.js'
import { spread, type SpreadDone, type SpreadOptions, type SpreadResult } from './spread.js'

export interface LeaseInvokeOptions extends InvokeOptions {
  /** Which of the lease's workers, from 0. Default: the least busy. */
  readonly worker?: number
}

const leaseInvokeOptions = new Set([...invokeOptions, 'worker'])
const releaseMs = 30_000

/**
 * Workers of one process that nobody else uses, and connections to each of them: calls go from this thread to the worker's,
 * with no host and no queue between. They share the process's state with its other workers.
 *
 * A lease ends when it is closed, when it expires, when the process takes it back, and with the connection of the process's
 * handle it was taken by. What is called afterwards, and was in flight then, fails with the reason (`ended`).
 */
export class Lease implements AsyncDisposable {
  /** Of the process that it is of. */
  readonly processId: string
  /** As the host numbers and `praas leases` lists it. */
  readonly id: bigint
  /** Where the time went until it was there. */
  readonly phases: LeasePhases
  readonly #holding: LeaseHolding
  /** Places of the workers that memory is for. */
  readonly #places = new WeakMap<ArrayBufferLike, number>()
  #closing: Promise<LeaseReport | undefined> | undefined

  /** @internal Use `Process.lease`. */
  constructor(holding: LeaseHolding, phases: LeasePhases) {
    this.#holding = holding
    this.processId = holding.process
    this.id = holding.control.lease
    this.phases = phases
  }

  /** Why it has ended: `ERR_LEASE_CLOSED`, `ERR_LEASE_EXPIRED`, `ERR_LEASE_REVOKED`, `ERR_HOST_LOST`, …; undefined while it lasts. */
  get ended(): PraasError | undefined {
    return this.#holding.ended
  }

  get closed(): boolean {
    return this.#holding.ended !== undefined
  }

  /** When it expires unless it is renewed; not before. */
  get expiresAt(): Date {
    return new Date(Date.now() + this.#holding.renewal.expiresMs - monotonicMs())
  }

  /** Its workers now, by place. */
  get workers(): readonly LeasedWorkerInfo[] {
    return this.#holding.workers.list()
  }

  /** What calls take: `shm`, `verbs` or `tcp`. */
  get transport(): string {
    return this.#holding.workers.at(0)?.session.way.transport ?? 'none'
  }

  /**
   * Calls a function on the least busy worker and resolves with its result; see `Process.invoke`.
   *
   * @param options.worker  Which of the lease's workers, 0 … count − 1. Default: the least busy.
   * @throws what `Process.invoke` throws · {WorkerError} `ERR_WORKER_CRASHED` with signal and stderr over every transport ·
   *   {LeaseError} `ERR_LEASE_EXPIRED` · `ERR_LEASE_REVOKED` · `ERR_LEASE_CLOSED`
   */
  invoke<Output = Uint8Array>(
    functionName: string,
    input?: unknown,
    options: LeaseInvokeOptions = noOptions,
  ): Promise<Output> {
    const holding = this.#holding
    const { workers } = holding
    const remote = holding.session.known(functionName)
    const worker = workers.pick()
    if (!remote || !worker || options !== noOptions || remote.idempotent || remote.stream) {
      return this.#invokeSomewhere(functionName, input, options) as Promise<Output>
    }
    const { session } = worker
    let reply: Promise<Uint8Array | number>
    try {
      reply = session.invoke(remote, session.encode(remote, undefined, input))
    } catch (error) {
      return this.#failed(error, worker, functionName)
    }
    workers.begin(worker)
    return reply.then(
      (result) => {
        workers.finish(worker)
        return remote.output.decode(session.take(result)) as Output
      },
      (error: unknown) => {
        workers.finish(worker)
        return this.#failed(error, worker, functionName)
      },
    )
  }

  async #failed(error: unknown, worker: LeasedWorker, functionName: string): Promise<never> {
    throw await this.#holding.explain(error, worker, functionName, worker.session.info.defaultTimeoutMs)
  }

  async #invokeSomewhere(functionName: string, input: unknown, options: LeaseInvokeOptions): Promise<unknown> {
    checkInvokeOptions(options, leaseInvokeOptions)
    this.#checkWorker(options.worker)
    return (await this.#invokeWithCare(functionName, input, options)).output
  }

  /** A call that may have to wait for a worker, to be aborted, or to be repeated. */
  async #invokeWithCare(functionName: string, input: unknown, options: LeaseInvokeOptions): Promise<SpreadDone> {
    const holding = this.#holding
    const { session, workers } = holding
    const { signal, timeoutMs = session.info.defaultTimeoutMs } = options
    const deadline = performance.now() + timeoutMs
    const left = (): number => {
      const leftMs = deadline - performance.now()
      if (leftMs > 0) return leftMs
      throw new InvocationError('ERR_INVOCATION_TIMEOUT', `${functionName} was not answered within ${timeoutMs} ms`)
    }
    for (let deaths = 0; ;) {
      signal?.throwIfAborted()
      holding.throwIfEnded()
      const worker = this.#choose(options)
      if (!worker) {
        await this.#change(left(), signal)
        continue
      }
      let repeatable = false
      try {
        const remote = session.known(functionName) ?? (await session.resolve(functionName, left(), signal))
        if (remote.stream) throw streamMismatch(functionName, true)
        // The name may have taken its time.
        if (!worker.alive) continue
        repeatable = isIdempotent(remote, options)
        workers.begin(worker)
        try {
          return { output: await callOnce(worker.session, remote, input, options, left()), worker: worker.index }
        } finally {
          workers.finish(worker)
        }
      } catch (error) {
        if (signal?.aborted === true) throw error
        const why = await holding.explain(error, worker, functionName, deadline - performance.now())
        const again = repeatable && (isWorkerDeath(why) || isLost(why)) && ++deaths <= maxWorkerDeaths
        if (!again || holding.ended) throw why
      }
    }
  }

  /** The worker for a call, unless it is not there now. */
  #choose({ worker, output }: LeaseInvokeOptions): LeasedWorker | undefined {
    const { workers } = this.#holding
    const chosen = worker ?? (output && this.#places.get(output.buffer))
    if (chosen === undefined) return workers.pick()
    const found = workers.at(chosen)
    return found?.alive === true ? found : undefined
  }

  /** Waits until something about workers has changed. */
  async #change(timeoutMs: number, signal: AbortSignal | undefined): Promise<void> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, Math.min(timeoutMs, maxTimerMs))))
    const changed = Promise.race([this.#holding.workers.nextChange(), late])
    try {
      await (signal ? abortable(changed, signal) : changed)
    } finally {
      clearTimeout(timer)
    }
  }

  /**
   * Calls a function on the least busy worker and blocks until its result is there; see `Process.invokeSync`. A program
   * that does nothing else renews the lease between two calls, none of which must take longer than half of its `ttlMs`.
   *
   * @throws what `invoke` throws · {LeaseError} `ERR_LEASE_UNAVAILABLE` when all its workers have died and none has taken
   *   their place yet
   */
  invokeSync<Output = Uint8Array>(
    functionName: string,
    input?: unknown,
    options: Omit<LeaseInvokeOptions, 'signal'> = noOptions,
  ): Output {
    const holding = this.#holding
    if (options !== noOptions) {
      checkInvokeOptions(options, leaseInvokeOptions)
      this.#checkWorker(options.worker)
    }
    const worker = options === noOptions ? holding.workers.pick() : this.#choose(options)
    if (!worker) throw this.#noWorker()
    const { session } = worker
    let timeoutMs = options.timeoutMs ?? session.info.defaultTimeoutMs
    let remote = holding.session.known(functionName)
    if (!remote) {
      const started = performance.now()
      remote = holding.session.resolveSync(functionName, timeoutMs)
      timeoutMs = Math.max(timeoutMs - (performance.now() - started), 1)
    }
    if (remote.stream) throw streamMismatch(functionName, true)
    const codecs = codecsOf(remote, options)
    const bytes = session.encode(remote, codecs.input, input)
    const flags = callFlags.sync | (isIdempotent(remote, options) ? callFlags.idempotent : 0)
    worker.calls++
    let reply: Uint8Array
    try {
      reply = session.invokeSync(remote, bytes, options.output, flags, timeoutMs)
    } catch (error) {
      reply = this.#failedSync(error, worker, remote, bytes, options, timeoutMs)
    }
    if ((worker.calledMs[0] ?? 0) >= holding.renewal.dueMs) holding.renewal.renewSync()
    return codecs.output.decode(reply) as Output
  }

  /** The result of the call on another worker, if it may be made again. */
  #failedSync(
    error: unknown,
    worker: LeasedWorker,
    remote: RemoteFunction,
    bytes: Uint8Array,
    options: LeaseInvokeOptions,
    timeoutMs: number,
  ): Uint8Array {
    const holding = this.#holding
    const deadline = (worker.calledMs[0] ?? 0) + timeoutMs
    let tried = worker
    let why = holding.explainSync(error, tried, remote.name, deadline - monotonicMs())
    for (let deaths = 0; ;) {
      const again = isIdempotent(remote, options) && (isWorkerDeath(why) || isLost(why)) && ++deaths <= maxWorkerDeaths
      const other = again ? this.#choose(options) : undefined
      const leftMs = deadline - monotonicMs()
      if (!other || leftMs <= 0) throw why
      tried = other
      try {
        const flags = callFlags.sync | callFlags.idempotent
        return tried.session.invokeSync(remote, bytes, options.output, flags, leftMs)
      } catch (failure) {
        why = holding.explainSync(failure, tried, remote.name, deadline - monotonicMs())
      }
    }
  }

  /**
   * Calls a function once per input, several at a time on each worker, and yields the results: in the order of the inputs,
   * or with `ordered: false` as they come, with the number of their input and who has computed them. Whoever finishes takes
   * the next input, so a faster worker gets more of them. The first failure, or leaving the loop, cancels what is in flight.
   *
   * @param options.inFlight  Calls at a time per worker, 1 … 65,536. Default: 2, and with `local` as many as keep workers
   *   busy while this thread computes.
   * @param options.local  The same function in this program. This thread then takes a share of the inputs while the loop
   *   waits for results, as large as its measured speed allows: it begins none that the workers would finish sooner.
   */
  invokeMany<Output = Uint8Array>(
    functionName: string,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    options: SpreadOptions<Output> & { readonly ordered: false },
  ): AsyncGenerator<SpreadResult<Output>, void, void>
  invokeMany<Output = Uint8Array>(
    functionName: string,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    options?: SpreadOptions<Output>,
  ): AsyncGenerator<Output, void, void>
  invokeMany(
    functionName: string,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    options: SpreadOptions<unknown> = {},
  ): AsyncGenerator<unknown, void, void> {
    const { workers } = this.#holding
    const invoke = (input: unknown, callOptions: InvokeOptions): Promise<SpreadDone> =>
      this.#invokeWithCare(functionName, input, callOptions)
    const over = { invoke, workers: () => Math.max(workers.alive, 1), now: () => performance.now() }
    return spread(over, inputs, options)
  }

  /**
   * Memory for inputs and results that calls of one worker use without a copy when the connection is `shm` or `verbs`. Valid
   * until `release`, or the end of the lease; afterwards its length is 0. When its worker ends it stays as it is, so that
   * calls may be repeated with it: inputs in it are copied. A call whose `output` it is goes to that worker, or who takes its
   * place; one whose input it is should (`options.worker`).
   *
   * @param byteLength  at least 1
   * @param worker  Which of the lease's workers, from 0.
   * @throws {PayloadError} `ERR_PAYLOAD_TOO_LARGE` · {LeaseError}
   */
  allocate(byteLength: number, worker = 0): Uint8Array {
    this.#checkWorker(worker)
    const chosen = this.#choose({ worker })
    if (!chosen) throw this.#noWorker()
    const buffer = allocateFrom(chosen.session, byteLength)
    this.#places.set(buffer.buffer, chosen.index)
    return buffer
  }

  /** Gives memory from `allocate` back. No call may be using it. */
  release(buffer: Uint8Array): void {
    releaseTo(buffer, undefined)
  }

  /**
   * Renews it now.
   *
   * @param ttlMs  Until it expires then, and after later renewals, 1 ms … 7 days. Default: as before.
   * @throws {LeaseError} `ERR_LEASE_EXPIRED` · `ERR_LEASE_REVOKED` · `ERR_LEASE_CLOSED`
   */
  async renew(ttlMs?: number): Promise<void> {
    if (ttlMs !== undefined && !(ttlMs >= 1 && ttlMs <= maxTimeoutMs)) {
      throw new ArgumentError(`renew: ttlMs: expected 1 … ${maxTimeoutMs} milliseconds, received ${String(ttlMs)}`)
    }
    this.#holding.throwIfEnded()
    try {
      await this.#holding.renewal.renew(ttlMs)
    } catch (error) {
      throw this.#holding.ended ?? error
    }
  }

  /** What it has used until now, as its host and workers count. The last report after its end. */
  async accounting(): Promise<LeaseReport> {
    return this.#holding.report()
  }

  /**
   * Gives the workers back. Calls in flight fail with `ERR_LEASE_CLOSED`. Idempotent.
   *
   * @returns what it has used altogether; undefined when its host is gone
   */
  close(): Promise<LeaseReport | undefined> {
    return (this.#closing ??= this.#holding.close(releaseMs))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #noWorker(): PraasError {
    return (
      this.#holding.ended ??
      new LeaseError(
        'ERR_LEASE_UNAVAILABLE',
        `no worker of lease ${this.id} of process ${this.processId} takes calls now; another one will take its place`,
      )
    )
  }

  #checkWorker(worker: number | undefined): void {
    const { count } = this.#holding.workers
    if (worker === undefined || (Number.isInteger(worker) && worker >= 0 && worker < count)) return
    throw new ArgumentError(`lease: worker: expected an integer, 0 … ${count - 1}, received ${String(worker)}`)
  }
}
