/** Streaming calls: chunks in both directions, each with back-pressure. */
import { asBytes, describe } from '../codecs.js'
import { ArgumentError, codeOf, PayloadError } from '../errors.js'
import { fromNative } from '../native/errors.js'
import { checkInvokeOptions, streamMismatch, type InvokeOptions } from './call.js'
import type { Link } from './link.js'
import { callFlags, type Session } from './session.js'
import { leave } from './source.js'

export type StreamOptions = Pick<InvokeOptions, 'signal' | 'timeoutMs'>

type Source = AsyncIterable<Uint8Array> | Iterable<Uint8Array>

const connectMs = 30_000

export async function* invokeStream(
  link: Link,
  functionName: string,
  source: Source,
  options: StreamOptions,
): AsyncGenerator<Uint8Array, void, void> {
  checkInvokeOptions(options)
  const { signal } = options
  signal?.throwIfAborted()
  let started = performance.now()
  const session = await link.session(options.timeoutMs ?? connectMs, signal)
  // The time of the process is for its calls; what the caller gave is for everything.
  if (options.timeoutMs === undefined) started = performance.now()
  const timeoutMs = options.timeoutMs ?? session.info.defaultTimeoutMs
  const left = (): number => Math.max(timeoutMs - (performance.now() - started), 1)
  const remote = await session.resolve(functionName, left(), signal)
  if (!remote.stream) throw streamMismatch(functionName, false)

  const call = new StreamCall(session, remote.index, left())
  const abort = (): void => call.stop(signal?.reason)
  signal?.addEventListener('abort', abort, { once: true })
  if (signal?.aborted === true) abort()
  const sending = call.send(source)
  try {
    for (let chunk = await call.next(); chunk; chunk = await call.next()) yield chunk
    await sending
  } catch (error) {
    signal?.throwIfAborted()
    throw fromNative(error, session.context(functionName))
  } finally {
    signal?.removeEventListener('abort', abort)
    call.stop(new PayloadError('ERR_STREAM_ABORTED', `the reader of ${functionName} left`))
    sending.catch(() => undefined)
  }
}

/** One streaming call in progress. */
class StreamCall {
  readonly #session: Session
  readonly #id: bigint
  readonly #received: Uint8Array[] = []
  #room = 0
  #ended = false
  #failure: { readonly reason: unknown } | undefined
  #wakeReader: (() => void) | undefined
  #wakeSender: (() => void) | undefined
  /** The sender waits for its source. */
  #leaveSource: (() => void) | undefined

  constructor(session: Session, fn: number, timeoutMs: number) {
    this.#session = session
    this.#id = session.connection.openStream(fn, callFlags.stream, timeoutMs, {
      chunk: (bytes) => {
        this.#received.push(bytes)
        this.#wake()
      },
      room: (bytes) => {
        this.#room += bytes
        this.#wake()
      },
      end: (error) => this.#end(error ? { reason: error } : undefined),
    })
  }

  /** The next chunk of the result, or undefined after the last. */
  async next(): Promise<Uint8Array | undefined> {
    for (;;) {
      const chunk = this.#received.shift()
      if (chunk) {
        // Only what the reader has taken makes room for more.
        if (!this.#ended) this.#session.connection.consumed(this.#id, chunk.byteLength)
        return chunk
      }
      if (this.#failure) throw this.#failure.reason
      if (this.#ended) return undefined
      await new Promise<void>((resolve) => (this.#wakeReader = resolve))
    }
  }

  /**
   * Sends all chunks as the peer makes room. A source that throws ends the call with its error; one that has nothing to say
   * is left when the call ends.
   */
  async send(source: Source): Promise<void> {
    let iterator: AsyncIterator<Uint8Array> | Iterator<Uint8Array> | undefined
    try {
      iterator = Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
      for (;;) {
        const step = await this.#nextOf(iterator)
        if (step === undefined) break
        if (step.done === true) {
          iterator = undefined
          this.#give(new Uint8Array(0), true)
          break
        }
        const bytes = asBytes(step.value)
        if (!bytes)
          throw new ArgumentError(`invokeStream: source: expected chunks of bytes, received ${describe(step.value)}`)
        await this.#sendChunk(bytes)
        if (this.#ended) break
      }
    } catch (error) {
      this.stop(error)
    }
    if (iterator) leave(iterator)
  }

  /** What the source says next; undefined when the call has ended before. */
  #nextOf(
    iterator: AsyncIterator<Uint8Array> | Iterator<Uint8Array>,
  ): Promise<IteratorResult<Uint8Array, unknown> | undefined> {
    return new Promise((resolve, reject) => {
      this.#leaveSource = () => resolve(undefined)
      if (this.#ended) this.#leaveSource()
      else Promise.resolve(iterator.next()).then(resolve, reject)
    })
  }

  async #sendChunk(bytes: Uint8Array): Promise<void> {
    let rest = bytes
    while (rest.byteLength > 0 && !this.#ended) {
      const taken = this.#room > 0 ? this.#give(rest.subarray(0, this.#room), false) : 0
      this.#room -= taken
      rest = rest.subarray(taken)
      if (taken === 0) await new Promise<void>((resolve) => (this.#wakeSender = resolve))
    }
  }

  /** How much of it the connection takes: all, when the call has ended there and how is told in a later turn. */
  #give(bytes: Uint8Array, last: boolean): number {
    try {
      return this.#session.connection.sendChunk(this.#id, bytes, last)
    } catch (error) {
      if (codeOf(error) === 'ERR_STREAM_ABORTED') return bytes.byteLength
      throw error
    }
  }

  /** Cancels the call unless it has ended; a reader then gets `reason`. */
  stop(reason: unknown): void {
    if (this.#ended) return
    this.#session.cancel(this.#id)
    this.#end({ reason })
  }

  #end(failure: { readonly reason: unknown } | undefined): void {
    if (this.#ended) return
    this.#ended = true
    this.#failure = failure
    this.#wake()
    this.#leaveSource?.()
  }

  #wake(): void {
    this.#wakeReader?.()
    this.#wakeReader = undefined
    this.#wakeSender?.()
    this.#wakeSender = undefined
  }
}
