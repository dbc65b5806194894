/** Takes invocations from native code, runs handlers, and gives their outcome back. */
import type { LoadedApp } from '../app.js'
import type { Process } from '../client/process.js'
import { describe, unpackTraits, type FunctionTraits } from '../codecs.js'
import type { InvocationError } from '../errors.js'
import { codeOf, messageOf } from '../errors.js'
import type { NativeWorker } from '../native/binding.js'
import { PENDING } from '../native/outcome.js'
import { InvocationContext } from './context.js'
import { describeThrown } from './failure.js'
import { registration, type AppFunction } from './functions.js'
import { HandedReader } from './handed.js'
import { PeerProcesses } from './peers.js'
import { inputChunks, sendChunks, StreamNotices, type StreamEnds } from './streams.js'
import { guardInput } from './views.js'

/** What `hooks.invoke` gives back: the result, or that it comes later. */
type Outcome = Uint8Array | undefined | typeof PENDING

export interface FoundFunction {
  /** Number of the function in the process; does not change as long as this worker lives. */
  readonly index: number
  readonly traits: FunctionTraits
}

export class WorkerServer {
  readonly worker: NativeWorker
  readonly checkViews: boolean
  readonly #functions: readonly AppFunction[]
  /** Of all functions of the application, in any language. */
  readonly #traits: ReadonlyMap<string, FunctionTraits>
  readonly #found = new Map<string, FoundFunction>()
  readonly #running = new Map<bigint, InvocationContext>()
  readonly handed: HandedReader
  readonly #notices = new StreamNotices()
  readonly #peers: PeerProcesses
  #draining = false

  constructor(worker: NativeWorker, app: LoadedApp, functions: readonly AppFunction[]) {
    this.worker = worker
    this.handed = new HandedReader(worker.handed)
    this.checkViews = app.checkViews
    this.#functions = functions
    this.#traits = new Map([
      ...app.native.map(({ name, flags }) => [name, unpackTraits(flags)] as const),
      ...functions.map(({ name, traits }) => [name, traits] as const),
    ])
    this.#peers = new PeerProcesses(app.control)
  }

  start(): void {
    this.worker.start(registration(this.#functions), {
      invoke: (input) => this.#invoke(input),
      cancelled: (handle) => this.#running.get(handle)?.cancel(),
      drain: () => {
        this.#draining = true
        this.#exitWhenDrained()
      },
      streams: () => this.#notices.notify(),
    })
  }

  /** A function of this application in any language, once its workers have registered it. */
  find(name: string): FoundFunction | undefined {
    const known = this.#found.get(name)
    if (known) return known
    const traits = this.#traits.get(name)
    // Not the place in `#functions`: functions of other languages may have been registered before.
    const index = this.worker.findFunction(name)
    if (!traits || index === undefined) return undefined
    const found = { index, traits }
    this.#found.set(name, found)
    return found
  }

  peer(id: string): Promise<Process> {
    return this.#peers.get(id)
  }

  #invoke(input: Uint8Array): Outcome {
    const invocation = this.handed.read()
    const { handle } = invocation
    const fn = this.#functions[invocation.fn]
    if (!fn) {
      this.worker.fail(handle, 'ERR_FUNCTION_UNKNOWN', `the application has no function number ${invocation.fn}`)
      return PENDING
    }
    const context = new InvocationContext(this, invocation, fn.name)
    if (invocation.stream) return this.#stream(context, fn)
    let result: unknown
    try {
      const { views } = context
      const bytes = views ? views.copy(input) : guardInput(input)
      // Synchronous handlers can be cancelled too: a nested invokeSync lets native code look around.
      result = fn.handler(fn.traits.input.decode(bytes), context)
    } catch (error) {
      this.#fail(context, error)
      return PENDING
    }
    if (isPromise(result)) {
      this.#running.set(handle, context)
      result.then(
        (value) => this.#settle(context, fn, value),
        (error: unknown) => this.#fail(context, error),
      )
      return PENDING
    }
    if (context.views) {
      // The bytes may lie in a buffer that is detached when the handler's views end: complete first.
      this.#settle(context, fn, result)
      return PENDING
    }
    try {
      return fn.traits.output.encode(result)
    } catch (error) {
      this.#failResult(context, fn, result, error)
      return PENDING
    }
  }

  #settle(context: InvocationContext, fn: AppFunction, value: unknown): void {
    let bytes: Uint8Array
    try {
      bytes = fn.traits.output.encode(value)
    } catch (error) {
      return this.#failResult(context, fn, value, error)
    }
    try {
      // false: the deadline or a cancellation came first. That answer stands.
      this.worker.complete(context.handle, bytes)
    } catch (error) {
      return this.#fail(context, error)
    }
    this.#end(context)
  }

  #stream(context: InvocationContext, fn: AppFunction): typeof PENDING {
    this.#running.set(context.handle, context)
    const ends: StreamEnds = {
      worker: this.worker,
      handle: context.handle,
      notices: this.#notices,
      signal: context.signal,
      checkViews: this.checkViews,
    }
    const run = async (): Promise<void> => {
      try {
        await sendChunks(ends, fn.name, await fn.handler(inputChunks(ends), context))
        this.worker.complete(context.handle, undefined)
        this.#end(context)
      } catch (error) {
        this.#fail(context, error)
      }
    }
    void run()
    return PENDING
  }

  #failResult(context: InvocationContext, fn: AppFunction, value: unknown, error: unknown): void {
    const remedy = fn.traits.output.name === 'raw' ? '; return bytes or declare a codec with defineFunction' : ''
    const message = `function ${fn.name} returned ${describe(value)}: ${messageOf(error)}${remedy}`
    this.worker.fail(context.handle, 'ERR_FUNCTION_RESULT', message)
    this.#end(context)
  }

  #fail(context: InvocationContext, error: unknown): void {
    const code = error instanceof Error && codeOf(error) === 'ERR_FUNCTION_RESULT' ? 'ERR_FUNCTION_RESULT' : undefined
    if (code) this.worker.fail(context.handle, code, messageOf(error))
    else if (context.cancelled && error === context.signal.reason) {
      this.worker.fail(context.handle, (error as InvocationError).code, (error as InvocationError).message)
    } else this.worker.fail(context.handle, 'ERR_FUNCTION_THREW', describeThrown(error))
    this.#end(context)
  }

  #end(context: InvocationContext): void {
    this.#running.delete(context.handle)
    context.end()
    this.#exitWhenDrained()
  }

  #exitWhenDrained(): void {
    if (this.#draining && this.#running.size === 0) setImmediate(() => process.exit(0))
  }
}

function isPromise(value: unknown): value is Promise<unknown> {
  return typeof value === 'object' && value !== null && 'then' in value && typeof value.then === 'function'
}
