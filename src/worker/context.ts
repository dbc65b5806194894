/** The running invocation as its handler sees it. */
import { inspect } from 'node:util'
import type { Process } from '../client/process.js'
import { monotonicMs } from '../clock.js'
import { FunctionError, InvocationError } from '../errors.js'
import type { Context, NestedCallOptions, WorkerState } from '../function/context.js'
import { checkKnown, checkTimeout } from '../limits.js'
import { fromNative, translated } from '../native/errors.js'
import type { Handed } from './handed.js'
import type { FoundFunction, WorkerServer } from './server.js'
import { InvocationState } from './state.js'
import { CheckedViews, guardShared } from './views.js'

/** Client, host and worker each watch the deadline; whoever sees it first cancels. */
const deadlineSlackMs = 5
const idempotentFlag = 1 << 0
const syncFlag = 1 << 4
const knownOptions = new Set(['timeoutMs', 'signal', 'idempotent'])

export class InvocationContext implements Context {
  readonly handle: bigint
  readonly functionName: string
  readonly depth: number
  /** The handler's views, when each has to be a buffer of its own. */
  readonly views: CheckedViews | undefined
  readonly #server: WorkerServer
  readonly #deadlineMs: number
  #abort: AbortController | undefined
  #cancelled: InvocationError | undefined
  #state: InvocationState | undefined
  /** Nested calls in flight: they are cancelled with this invocation. */
  #nested: Set<bigint> | undefined

  constructor(server: WorkerServer, invocation: Handed, functionName: string) {
    this.#server = server
    this.handle = invocation.handle
    this.depth = invocation.depth
    this.functionName = functionName
    this.#deadlineMs = invocation.deadlineMs
    this.views = server.checkViews ? new CheckedViews() : undefined
  }

  get processId(): string {
    return this.#server.worker.processId
  }

  get invocationId(): bigint {
    return this.handle
  }

  get remainingMs(): number {
    return Math.max(0, this.#deadlineMs - monotonicMs())
  }

  get deadline(): Date {
    return new Date(Date.now() + this.remainingMs)
  }

  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController()
      if (this.#cancelled) this.#abort.abort(this.#cancelled)
    }
    return this.#abort.signal
  }

  get state(): WorkerState {
    this.#state ??= new InvocationState(this.#server.worker, this)
    return this.#state
  }

  get cancelled(): boolean {
    return this.#cancelled !== undefined
  }

  async invoke<Output = Uint8Array>(
    functionName: string,
    input?: unknown,
    options: NestedCallOptions = {},
  ): Promise<Output> {
    const { signal } = options
    signal?.throwIfAborted()
    const { index, traits, bytes, flags, deadlineMs } = this.#prepare(functionName, input, options)
    const { worker } = this.#server
    const nested = (this.#nested ??= new Set())
    let id: bigint | undefined
    const cancel = (): void => {
      if (id !== undefined) worker.cancelNested(id)
    }
    signal?.addEventListener('abort', cancel, { once: true })
    try {
      const call = worker.invoke(index, bytes, flags, this.depth + 1, deadlineMs, this.handle)
      id = call.id
      nested.add(id)
      return traits.output.decode(await call.promise) as Output
    } catch (error) {
      signal?.throwIfAborted()
      throw fromNative(error, { process: this.processId, function: functionName })
    } finally {
      signal?.removeEventListener('abort', cancel)
      if (id !== undefined) nested.delete(id)
    }
  }

  invokeSync<Output = Uint8Array>(functionName: string, input?: unknown, options: NestedCallOptions = {}): Output {
    const { index, traits, bytes, flags, deadlineMs } = this.#prepare(functionName, input, options)
    const { worker, handed } = this.#server
    let reply: Uint8Array | number
    try {
      reply = worker.invokeSync(index, bytes, flags | syncFlag, this.depth + 1, deadlineMs)
    } catch (error) {
      throw fromNative(error, { process: this.processId, function: functionName })
    }
    return traits.output.decode(handed.result(reply)) as Output
  }

  process(id: string): Promise<Process> {
    return this.#server.peer(id)
  }

  output(byteLength: number): Uint8Array {
    if (this.views) return this.views.allocate(byteLength)
    return guardShared(translated(() => this.#server.worker.output(this.handle, byteLength)))
  }

  log(message: string, ...details: readonly unknown[]): void {
    const rest = details.map((detail) => ` ${typeof detail === 'string' ? detail : inspect(detail)}`).join('')
    const who = `${this.processId}/${this.#server.worker.participant} ${this.functionName}#${this.handle}`
    process.stdout.write(`${new Date().toISOString()} ${who}: ${message}${rest}\n`)
  }

  /** The caller has given up or the deadline has passed. */
  cancel(): void {
    if (this.#cancelled) return
    this.#cancelled =
      this.remainingMs > deadlineSlackMs
        ? new InvocationError('ERR_INVOCATION_CANCELLED', `the caller of ${this.functionName} has given up`)
        : new InvocationError('ERR_INVOCATION_TIMEOUT', `the deadline of ${this.functionName} has passed`)
    for (const id of this.#nested ?? []) this.#server.worker.cancelNested(id)
    this.#abort?.abort(this.#cancelled)
  }

  /** The handler has settled: nothing it was given may be used any longer. */
  end(): void {
    this.views?.end()
  }

  #prepare(functionName: string, input: unknown, options: NestedCallOptions): PreparedCall {
    checkKnown('ctx.invoke', options, knownOptions)
    checkTimeout('ctx.invoke', options.timeoutMs)
    const found = this.#server.find(functionName)
    if (!found) {
      throw new FunctionError(
        'ERR_FUNCTION_UNKNOWN',
        `the application of process ${this.processId} has no function ${functionName}`,
      )
    }
    // Native code sees whether it has passed: reading the clock here would cost a tenth of a call.
    const deadlineMs =
      options.timeoutMs === undefined ? this.#deadlineMs : Math.min(this.#deadlineMs, monotonicMs() + options.timeoutMs)
    const { index, traits } = found
    // Field by field: an object made by spreading gets a new shape with every call, which costs a microsecond.
    return {
      index,
      traits,
      bytes: traits.input.encode(input),
      flags: (options.idempotent ?? traits.idempotent) ? idempotentFlag : 0,
      deadlineMs,
    }
  }
}

interface PreparedCall extends FoundFunction {
  readonly bytes: Uint8Array
  readonly flags: number
  readonly deadlineMs: number
}
