/** A cloud process as its clients hold it. */
import type { CodecName } from '../codecs.js'
import type { ControlPlane, ProcessDescription } from '../control.js'
import { codeOf, InvocationError, ProcessError } from '../errors.js'
import { fromNative } from '../native/errors.js'
import { fromJson } from './answers.js'
import {
  callOnce,
  checkInvokeOptions,
  codecsOf,
  isIdempotent,
  isWorkerDeath,
  maxWorkerDeaths,
  noOptions,
  streamMismatch,
  type InvokeOptions,
} from './call.js'
import type { Lease } from './lease.js'
import type { LeaseOptions } from './lease_options.js'
import type { LeaseList } from './lease_report.js'
import { isLost, type Link } from './link.js'
import { invokeMany, type ManyOptions, type ManyResult } from './many.js'
import { allocateFrom, releaseTo } from './memory.js'
import { openLease } from './open_lease.js'
import { parseTokenOptions, type TokenOptions } from './token_options.js'
import { callFlags, type RemoteFunction, type Session } from './session.js'
import { ClientState } from './state.js'
import { invokeStream, type StreamOptions } from './stream.js'
import { remoteFunctions, type RemoteFunctions } from './stub.js'

/** How a connection came about. */
export interface ConnectionInfo {
  /** `shm`, `verbs` or `tcp`. */
  readonly transport: string
  /** Why it is nothing faster: what could not be taken, or what broke since. */
  readonly reason?: string
  /** Largest payload in one piece, bytes. */
  readonly maxContiguousBytes: number
  readonly maxInFlight: number
  /** Of the process host. */
  readonly hostPid: number
}

/** What a function declares about itself. */
export interface FunctionSignature {
  readonly stream: boolean
  readonly idempotent: boolean
  /** Codec of the input. */
  readonly input: CodecName
  /** Codec of the result. */
  readonly output: CodecName
}

export interface StopOptions {
  /** How long running calls may take to finish, milliseconds. Default: 5,000. */
  readonly timeoutMs?: number
  /** Leaves the state behind for the next process of this id. Default: false. */
  readonly keep?: boolean
}

/**
 * A connection to one cloud process. It is opened again after the process's host was lost, names are resolved again then,
 * and calls go on; what was in flight fails, except calls that are idempotent.
 *
 * Closing it leaves the process alone; `stop` ends the process.
 */
export class Process implements AsyncDisposable {
  readonly id: string
  /** State of the process, shared by all its clients and workers. */
  readonly state: ClientState
  readonly #control: ControlPlane
  readonly #link: Link
  readonly #onClose: () => void

  /** @internal Use `Cluster.process`. */
  constructor(id: string, control: ControlPlane, link: Link, onClose: () => void) {
    this.id = id
    this.#control = control
    this.#link = link
    this.#onClose = onClose
    this.state = new ClientState(id, link)
  }

  get closed(): boolean {
    return this.#link.closed
  }

  /** Connects when there is no connection: after the host was lost, before `invokeSync`. */
  async connect(options: { readonly timeoutMs?: number; readonly signal?: AbortSignal } = {}): Promise<ConnectionInfo> {
    const session = await this.#link.session(options.timeoutMs ?? defaultConnectMs, options.signal)
    return connectionInfo(session)
  }

  /** What calls take: `shm`, `verbs` or `tcp`. While there is no connection, what the last one took. */
  get transport(): string {
    return this.#link.transport
  }

  /** How the present connection came about, or undefined when there is none. */
  get connection(): ConnectionInfo | undefined {
    const session = this.#link.current
    return session && connectionInfo(session)
  }

  /**
   * Calls a function and resolves with its result.
   *
   * @param input  What the function's codec takes: bytes for a plain function. Must not change until the promise settles.
   * @returns bytes for a plain function, else what the function's codec gives
   * @throws {FunctionError} `ERR_FUNCTION_THREW` with what it threw as `cause` · `ERR_FUNCTION_UNKNOWN` ·
   *   `ERR_FUNCTION_RESULT`
   * @throws {InvocationError} `ERR_INVOCATION_TIMEOUT` · `ERR_INVOCATION_CANCELLED`
   * @throws {WorkerError} `ERR_WORKER_CRASHED` with signal or exit code and the end of the worker's stderr
   * @throws {PayloadError} `ERR_PAYLOAD_TOO_LARGE` · `ERR_PAYLOAD_CODEC` · `ERR_BACKPRESSURE`
   * @throws {ProcessError} `ERR_HOST_LOST` · `ERR_PROCESS_DRAINING` · `ERR_PROCESS_CLOSED`
   */
  invoke<Output = Uint8Array>(
    functionName: string,
    input?: unknown,
    options: InvokeOptions = noOptions,
  ): Promise<Output> {
    const session = this.#link.current
    const remote = session?.known(functionName)
    if (!session || !remote || options !== noOptions || remote.idempotent || remote.stream) {
      return this.#invokeWithCare(functionName, input, options) as Promise<Output>
    }
    // Nothing to resolve, to abort or to repeat: straight to native code.
    let reply: Promise<Uint8Array | number>
    try {
      reply = session.invoke(remote, session.encode(remote, undefined, input))
    } catch (error) {
      if (isLost(error)) return this.#invokeWithCare(functionName, input, options) as Promise<Output>
      return rejected(fromNative(error, session.context(functionName)))
    }
    return reply.then(
      (result) => remote.output.decode(session.take(result)) as Output,
      (error: unknown) => {
        throw fromNative(error, session.context(functionName))
      },
    )
  }

  /** A call that may have to connect, to be aborted, or to be repeated. */
  async #invokeWithCare(functionName: string, input: unknown, options: InvokeOptions): Promise<unknown> {
    checkInvokeOptions(options)
    options.signal?.throwIfAborted()
    const started = performance.now()
    for (let workerDeaths = 0, losses = 0; ;) {
      const remaining = this.#remaining(options, started, functionName)
      let session: Session
      try {
        session = await this.#link.session(Math.min(remaining ?? defaultConnectMs, defaultConnectMs), options.signal)
      } catch (error) {
        const inTime = remaining === undefined || remaining > defaultConnectMs
        throw inTime || codeOf(error) !== 'ERR_CONNECTION_TIMEOUT' ? error : late(functionName, options, error)
      }
      let repeatable = true // nothing has been sent yet
      try {
        const { defaultTimeoutMs } = session.info
        const begun = performance.now()
        const left = (): number =>
          this.#remaining(options, started, functionName) ?? Math.max(defaultTimeoutMs - (performance.now() - begun), 1)
        const remote = await session.resolve(functionName, left(), options.signal)
        if (remote.stream) throw streamMismatch(functionName, true)
        repeatable = isIdempotent(remote, options)
        return await callOnce(session, remote, input, options, left())
      } catch (error) {
        const lost = isLost(error) && ++losses < maxLosses
        const crashed = isWorkerDeath(error) && ++workerDeaths <= maxWorkerDeaths
        if (this.closed || options.signal?.aborted || !repeatable || !(lost || crashed)) throw error
      }
    }
  }

  #remaining({ timeoutMs }: InvokeOptions, started: number, functionName: string): number | undefined {
    if (timeoutMs === undefined) return undefined
    const remaining = timeoutMs - (performance.now() - started)
    if (remaining > 0) return remaining
    throw late(functionName, { timeoutMs })
  }

  /**
   * Calls a function and blocks until its result is there: the fastest way for a program with nothing else to do. Needs an
   * open connection and does not open one; see `connect`.
   *
   * @throws what `invoke` throws · {ProcessError} `ERR_HOST_LOST` when there is no connection
   */
  invokeSync<Output = Uint8Array>(
    functionName: string,
    input?: unknown,
    options: Omit<InvokeOptions, 'signal'> = noOptions,
  ): Output {
    const session = this.#openSession()
    if (options !== noOptions) checkInvokeOptions(options)
    let timeoutMs = options.timeoutMs ?? session.info.defaultTimeoutMs
    let remote = session.known(functionName)
    if (!remote) {
      const started = performance.now()
      remote = session.resolveSync(functionName, timeoutMs)
      timeoutMs = Math.max(timeoutMs - (performance.now() - started), 1)
    }
    if (remote.stream) throw streamMismatch(functionName, true)
    const codecs = codecsOf(remote, options)
    const bytes = session.encode(remote, codecs.input, input)
    const flags = callFlags.sync | (isIdempotent(remote, options) ? callFlags.idempotent : 0)
    let reply: Uint8Array
    try {
      reply = session.invokeSync(remote, bytes, options.output, flags, timeoutMs)
    } catch (error) {
      throw fromNative(error, session.context(functionName))
    }
    return codecs.output.decode(reply) as Output
  }

  /**
   * Calls a function once per input, several at a time, and yields the results: in the order of the inputs, or with
   * `ordered: false` as they come, with the number of their input. Inputs are taken as calls finish. The first failure, or
   * leaving the loop, cancels what is in flight.
   *
   * @param options.inFlight  Calls at a time, 1 … 65,536. Default: 32.
   */
  invokeMany<Output = Uint8Array>(
    functionName: string,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    options: ManyOptions & { readonly ordered: false },
  ): AsyncGenerator<ManyResult<Output>, void, void>
  invokeMany<Output = Uint8Array>(
    functionName: string,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    options?: ManyOptions,
  ): AsyncGenerator<Output, void, void>
  invokeMany(
    functionName: string,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    options: ManyOptions = {},
  ): AsyncGenerator<unknown, void, void> {
    return invokeMany((input, callOptions) => this.invoke(functionName, input, callOptions), inputs, options)
  }

  /**
   * Calls a function declared with `stream: true`. Chunks go and come with back-pressure, so that neither side holds more
   * than a few of them, whatever the size of the whole. The call starts with the first `next()`; leaving the loop cancels it.
   *
   * @param source  Chunks of the input; each must not change until the next is asked for. Default: none.
   */
  invokeStream(
    functionName: string,
    source: AsyncIterable<Uint8Array> | Iterable<Uint8Array> = [],
    options: StreamOptions = {},
  ): AsyncGenerator<Uint8Array, void, void> {
    return invokeStream(this.#link, functionName, source, options)
  }

  /**
   * The functions of an application as methods, typed by its module.
   *
   * ```ts
   * const app = process.functions<typeof import('./app.js')>()
   * const sum = await app.add({ a: 1, b: 2 })
   * ```
   */
  functions<Module extends object>(): RemoteFunctions<Module> {
    return remoteFunctions<Module>(this)
  }

  /**
   * What a function declares about itself.
   *
   * @throws {FunctionError} `ERR_FUNCTION_UNKNOWN`
   */
  async signature(functionName: string, options: { readonly timeoutMs?: number } = {}): Promise<FunctionSignature> {
    const timeoutMs = options.timeoutMs ?? defaultConnectMs
    const session = await this.#link.session(timeoutMs)
    const { stream, idempotent, input, output } = await session.resolve(functionName, timeoutMs)
    return { stream, idempotent, input: input.name, output: output.name }
  }

  /**
   * Memory for inputs and results that calls use without a copy when the connection is `shm` or `verbs`. Valid until `release`
   * or `close`; afterwards its length is 0. When the connection is lost it stays as it is, so that calls may be repeated
   * with it: inputs in it are copied. After `ERR_INVOCATION_TIMEOUT` the late function may use it for another `graceMs`.
   */
  allocate(byteLength: number): Uint8Array {
    return allocateFrom(this.#openSession(), byteLength)
  }

  /** Gives memory from `allocate` back. No call may be using it. Nothing happens after `close`. */
  release(buffer: Uint8Array): void {
    releaseTo(buffer, this.#link.current)
  }

  /**
   * Takes workers that serve this client alone and are reached directly: no host and no queue on the path of a call. They are
   * started for it, or left over from an earlier lease.
   *
   * ```ts
   * await using lease = await process.lease({ workers: 2 })
   * lease.invokeSync('step', input)
   * for await (const result of lease.invokeMany('step', inputs, { local: step })) use(result)
   * ```
   *
   * @throws {LeaseError} `ERR_LEASE_UNAVAILABLE` when not enough workers are free within `waitMs` · {WorkerError}
   *   `ERR_WORKER_START` · {InvocationError} `ERR_INVOCATION_TIMEOUT` when they have not started within `timeoutMs` ·
   *   {ProcessError} `ERR_HOST_LOST` · `ERR_PROCESS_DRAINING` · `ERR_PROCESS_CLOSED` · {ConnectionError}
   *   `ERR_UPGRADE_FAILED` when `transport` is not possible · {ArgumentError}
   */
  async lease(options: LeaseOptions = {}): Promise<Lease> {
    return openLease(this.#link, options)
  }

  /** The leases there are of this process, whoever has them, and what they have used. */
  async leases(): Promise<LeaseList> {
    return (await this.#administer(adminLeases)) as LeaseList
  }

  /**
   * A token for somebody else, who may do with this process what its verbs say and nothing beyond.
   *
   * ```ts
   * const token = await process.token({ verbs: ['invoke'], ttlMs: '1 h' })
   * const cluster = await connect(url, { token }) // there, with the URL of a cluster that listens
   * ```
   *
   * Connections that are made with it end when it expires, and their leases and locks with them: `ERR_TOKEN_EXPIRED`.
   *
   * @returns text; whoever has it may do what it allows
   * @throws {ConnectionError} `ERR_NOT_PERMITTED` to who has only a token of the process · {ArgumentError}
   */
  async token(options: TokenOptions = {}): Promise<string> {
    return this.#control.token(this.id, parseTokenOptions(options))
  }

  /** What the control plane knows of the process. */
  async describe(): Promise<ProcessDescription> {
    return (await this.#control.find(this.id, { timeoutMs: defaultConnectMs })).process
  }

  /** Counters of the process and its workers, as its host keeps them. */
  async statistics(): Promise<unknown> {
    return this.#administer(adminStatistics)
  }

  async #administer(op: number): Promise<unknown> {
    const session = await this.#link.session(defaultConnectMs)
    try {
      return fromJson(await session.connection.admin(op, '', defaultConnectMs))
    } catch (error) {
      throw fromNative(error, { process: this.id })
    }
  }

  /** Ends the process: running calls finish, new ones are refused, then its state goes. Closes this handle. */
  async stop(options: StopOptions = {}): Promise<void> {
    const { timeoutMs = 5_000, keep = false } = options
    this.close()
    await this.#control.remove(this.id, { timeoutMs, keep })
  }

  /** Closes the connection. Calls in flight fail with `ERR_CONNECTION_CLOSED`. Idempotent. */
  close(): void {
    if (this.closed) return
    this.#link.close()
    this.#onClose()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.close()
  }

  #openSession(): Session {
    const session = this.#link.current
    if (session) return session
    if (this.closed) throw new ProcessError('ERR_PROCESS_CLOSED', `the handle of process ${this.id} was closed`)
    throw new ProcessError(
      'ERR_HOST_LOST',
      `there is no connection to process ${this.id} now; await process.connect() first`,
    )
  }
}

/** Losses of the connection one idempotent call lives through. */
const maxLosses = 10
const defaultConnectMs = 30_000
/** AdminOp of native/protocol/frame.h. */
const adminStatistics = 1
const adminLeases = 4

function late(functionName: string, { timeoutMs }: InvokeOptions, cause?: unknown): InvocationError {
  return new InvocationError('ERR_INVOCATION_TIMEOUT', `${functionName} was not answered within ${timeoutMs} ms`, {
    cause,
  })
}

async function rejected(reason: unknown): Promise<never> {
  throw reason
}

function connectionInfo({ info, way }: Session): ConnectionInfo {
  return {
    transport: way.transport,
    ...(way.upgradeReason === '' ? {} : { reason: way.upgradeReason }),
    maxContiguousBytes: info.maxContiguous,
    maxInFlight: info.maxInFlight,
    hostPid: info.hostPid,
  }
}

export type { RemoteFunction }
