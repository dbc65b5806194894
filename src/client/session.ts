/** One connection to a process with the functions it has resolved. */
import { rawCodec, unpackTraits, type Codec, type FunctionTraits } from '../codecs.js'
import type { Endpoint } from '../control.js'
import { codeOf, InvocationError, PayloadError } from '../errors.js'
import { SMALL_RESULTS, type NativeConnection, type NativeServerInfo } from '../native/binding.js'
import { fromNative, type CallContext } from '../native/errors.js'
import { checkName } from '../limits.js'
import { abortable, maxTimerMs } from './abortable.js'
import { writable } from './memory.js'

/** A function as a connection knows it. */
export interface RemoteFunction extends FunctionTraits {
  readonly name: string
  readonly index: number
}

export const callFlags = { idempotent: 1 << 0, stream: 1 << 1, sync: 1 << 4 } as const

/** What is told of the end of a connection; without an error, it was closed here. */
export type EndListener = (error: Error | undefined) => void

/** Of a place in `NativeConnection.small`. */
const smallBytes = 64

export class Session {
  readonly connection: NativeConnection
  /** What the connection was told by its host. Kept: each reading from native code makes an object. */
  readonly info: NativeServerInfo
  /** Where its host listens. */
  readonly endpoint: Endpoint
  readonly #endListeners = new Set<EndListener>()
  readonly #ended: Uint8Array
  readonly #scratch: Uint8Array
  readonly #small: Uint8Array
  readonly #smallTaken: Uint32Array
  readonly #functions = new Map<string, RemoteFunction>()
  readonly #resolving = new Map<string, Promise<RemoteFunction>>()

  constructor(connection: NativeConnection, endpoint: Endpoint) {
    this.connection = connection
    this.endpoint = endpoint
    this.info = connection.info
    this.#ended = connection.ended
    this.#scratch = connection.scratch
    this.#small = connection.small
    this.#smallTaken = connection.smallTaken
  }

  get closed(): boolean {
    return this.#ended[0] !== 0
  }

  /** What calls take now, and why nothing better: a connection whose faster way breaks goes on over TCP. */
  get way(): Pick<NativeServerInfo, 'transport' | 'upgradeReason'> {
    return this.closed ? this.info : this.connection.info
  }

  /** The function if its name was resolved on this connection before. */
  known(name: string): RemoteFunction | undefined {
    return this.#functions.get(name)
  }

  async resolve(name: string, timeoutMs: number, signal?: AbortSignal): Promise<RemoteFunction> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      signal?.throwIfAborted()
      const known = this.#functions.get(name)
      if (known) return known
      const resolving = this.#resolving.get(name) ?? this.#beginToResolve(name, timeoutMs)
      // Whoever has asked may have more time than this caller, or less.
      const late = AbortSignal.timeout(Math.min(Math.max(Math.ceil(deadline - performance.now()), 1), maxTimerMs))
      try {
        return await abortable(resolving, signal ? AbortSignal.any([signal, late]) : late)
      } catch (error) {
        signal?.throwIfAborted()
        if (error !== late.reason && codeOf(error) !== 'ERR_INVOCATION_TIMEOUT') throw error
        if (performance.now() < deadline) continue
        throw new InvocationError(
          'ERR_INVOCATION_TIMEOUT',
          `${name} was not resolved within ${Math.round(timeoutMs)} ms`,
        )
      }
    }
  }

  #beginToResolve(name: string, timeoutMs: number): Promise<RemoteFunction> {
    checkName('the name of a function', name)
    const resolving = this.#resolveNow(name, timeoutMs).finally(() => this.#resolving.delete(name))
    this.#resolving.set(name, resolving)
    return resolving
  }

  resolveSync(name: string, timeoutMs: number): RemoteFunction {
    const known = this.#functions.get(name)
    if (known) return known
    checkName('the name of a function', name)
    try {
      const { index, flags } = this.connection.resolveSync(name, timeoutMs)
      return this.#remember(name, index, flags)
    } catch (error) {
      throw fromNative(error, this.context(name))
    }
  }

  async #resolveNow(name: string, timeoutMs: number): Promise<RemoteFunction> {
    try {
      const { index, flags } = await this.connection.resolve(name, timeoutMs)
      return this.#remember(name, index, flags)
    } catch (error) {
      throw fromNative(error, this.context(name))
    }
  }

  #remember(name: string, index: number, flags: number): RemoteFunction {
    const { stream, idempotent, input, output } = unpackTraits(flags)
    // Field by field: objects made by spreading have a shape each, and every call reads this one.
    const remote: RemoteFunction = { name, index, stream, idempotent, input, output }
    this.#functions.set(name, remote)
    return remote
  }

  /** Input bytes of a call, refused when they can never be sent in one piece. */
  encode(remote: RemoteFunction, codec: Codec | undefined, input: unknown): Uint8Array {
    const bytes = (codec ?? remote.input ?? rawCodec).encode(input)
    const limit = this.info.maxContiguous
    if (bytes.byteLength > limit) {
      throw new PayloadError(
        'ERR_PAYLOAD_TOO_LARGE',
        `the input of ${remote.name} has ${bytes.byteLength} bytes; at most ${limit} go in one piece ` +
          '(option maxContiguous of the process), more through a function declared with `stream: true`',
      )
    }
    return bytes
  }

  /** Blocks until the result is there. */
  invokeSync(
    remote: RemoteFunction,
    input: Uint8Array,
    output: Uint8Array | undefined,
    flags: number,
    timeoutMs: number,
  ): Uint8Array {
    const reply = this.connection.invokeSync(remote.index, input, writable(this, output), flags, timeoutMs)
    // A small array made by compiled code costs a third of one made by native code.
    return typeof reply === 'number' ? this.#scratch.slice(0, reply) : reply
  }

  /** Starts a call of a function without options. Its reply is for `take`, in the first reaction of the promise. */
  invoke(remote: RemoteFunction, input: Uint8Array): Promise<Uint8Array | number> {
    return this.connection.invoke(remote.index, input, undefined, SMALL_RESULTS, this.info.defaultTimeoutMs)
  }

  take(reply: Uint8Array | number): Uint8Array {
    if (typeof reply !== 'number') return reply
    const begin = (reply >> 8) * smallBytes
    const result = this.#small.slice(begin, begin + (reply & 0xff))
    this.#smallTaken[0] = (this.#smallTaken[0] ?? 0) + 1
    return result
  }

  context(functionName: string): CallContext {
    return { process: this.info.process, function: functionName }
  }

  /** Tells the peer that nobody waits any longer. After the end of the connection nobody is there to be told. */
  cancel(id: bigint): void {
    if (!this.closed) this.connection.cancel(id)
  }

  /**
   * Calls back once when the connection ends, in a later turn of the event loop if it is lost; at once if it is closed.
   *
   * @returns what ends that
   */
  onEnd(listener: EndListener): () => void {
    if (this.closed && this.#endListeners.size === 0) {
      listener(undefined)
      return () => undefined
    }
    if (this.#endListeners.size === 0) this.connection.onLost((error) => this.#tellEnd(error))
    this.#endListeners.add(listener)
    return () => void this.#endListeners.delete(listener)
  }

  close(): void {
    this.connection.close()
    this.#tellEnd(undefined)
  }

  #tellEnd(error: Error | undefined): void {
    const listeners = [...this.#endListeners]
    this.#endListeners.clear()
    for (const listener of listeners) listener(error)
  }
}
