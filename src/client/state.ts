/** State of a process as its clients reach it. */
import { setImmediate as turn } from 'node:timers/promises'
import { asBytes, codecByName, describe, type Bytes, type CodecName } from '../codecs.js'
import { ArgumentError, codeOf, StateError } from '../errors.js'
import type { KeyInfo, StateEntry, StateLock } from '../function/context.js'
import type { NativeConnection } from '../native/binding.js'
import { fromNative } from '../native/errors.js'
import { checkKnown, checkName, checkOffset, checkTimeout } from '../limits.js'
import { keyInfo, pageKeys } from '../state_keys.js'
import { abortable } from './abortable.js'
import { isLost, type Link } from './link.js'
import type { Session } from './session.js'

export interface StateOptions {
  readonly signal?: AbortSignal
  /** Milliseconds. Default: that of the process. */
  readonly timeoutMs?: number
}

export interface StateValueOptions extends StateOptions {
  /** How values become bytes. Default: `raw`. */
  readonly codec?: CodecName
}

export interface ClientStateSetOptions extends StateValueOptions {
  /** Writes only when this is the current version; 0n: only when there is no such key. */
  readonly ifVersion?: bigint
  /** Replaces bytes from here on in a copy of the current value, which grows as needed. */
  readonly offset?: number
}

export interface PublishOptions extends StateOptions {
  /** Largest value that can be read without asking, bytes. Default: the present size. Rounded up to whole pages. */
  readonly capacity?: number
}

const connectMs = 30_000
/** For what begins when the time is over. */
const leastMs = 1
const knownOptions = new Set(['signal', 'timeoutMs', 'codec', 'ifVersion', 'offset', 'prefix', 'capacity'])
/** Reads in a row that need nobody, until timers and I/O have their turn; 4 KiB of a value count as one more. */
const readsPerTurn = 128

/**
 * Every operation is atomic and travels to the process's host. Reads are repeated when the connection is lost; writes are
 * not, because they may have been done.
 *
 * @throws {StateError} `ERR_STATE_VERSION` · `ERR_STATE_MEMORY` · `ERR_STATE_TYPE` · `ERR_STATE_RANGE` · `ERR_STATE_CONTENDED`
 */
export class ClientState {
  readonly #processId: string
  readonly #link: Link
  #readsInARow = 0

  /** @internal */
  constructor(processId: string, link: Link) {
    this.#processId = processId
    this.#link = link
  }

  /** The value, or undefined. */
  async get<Value = Uint8Array>(key: string, options: StateValueOptions = {}): Promise<Value | undefined> {
    return (await this.entry<Value>(key, options))?.value
  }

  /** The value with its version, for compare-and-set; undefined when there is none. */
  async entry<Value = Uint8Array>(
    key: string,
    options: StateValueOptions = {},
  ): Promise<{ readonly value: Value; readonly version: bigint } | undefined> {
    checkName('a key', key)
    const found = await this.#orUndefined(
      this.#read(options, (connection, timeoutMs) => connection.stateGet(key, timeoutMs)),
    )
    return found && { value: codecByName(options.codec ?? 'raw').decode(found.data) as Value, version: found.version }
  }

  /** Replaces the value atomically. @returns its version. */
  async set(key: string, value: unknown, options: ClientStateSetOptions = {}): Promise<bigint> {
    checkName('a key', key)
    const data = codecByName(options.codec ?? 'raw').encode(value)
    const { ifVersion, offset } = options
    return this.#write(options, (connection, timeoutMs) =>
      connection.stateSet(key, data, {
        timeoutMs,
        ...(ifVersion === undefined ? {} : { ifVersion }),
        ...(offset === undefined ? {} : { offset: checkOffset('offset', offset) }),
      }),
    )
  }

  /** Sets the value if `version` is still the current one (0n: if there is none). @returns the new version, or undefined. */
  async compareAndSet(
    key: string,
    version: bigint,
    value: unknown,
    options: StateValueOptions = {},
  ): Promise<bigint | undefined> {
    try {
      return await this.set(key, value, { ...options, ifVersion: version })
    } catch (error) {
      if (codeOf(error) === 'ERR_STATE_VERSION') return undefined
      throw error
    }
  }

  /** Adds bytes to the end of the value, which is created when absent. @returns its version. */
  async append(key: string, data: Bytes, options: StateOptions = {}): Promise<bigint> {
    checkName('a key', key)
    const bytes = asBytes(data)
    if (!bytes) throw new ArgumentError(`append: data: expected bytes, received ${describe(data)}`)
    return this.#write(options, (connection, timeoutMs) => connection.stateAppend(key, bytes, timeoutMs))
  }

  /**
   * The value with its version, or undefined; where the key is published, *one-sided*: on the same machine it is copied
   * straight out of the process's memory, without waking or asking anybody. The host answers what cannot be read so: the
   * first read, one over TCP, of a key that is not published, of a value that is larger than its publication or is being
   * written all the time. It needs no worker for that.
   *
   * Either way the result is whole and was the value at some moment during the read, and versions never go back. (After
   * the death of its host a connection may read the last value for as long as it has not noticed.)
   *
   * @throws {StateError} `ERR_STATE_TYPE` for an array, which others change in place
   */
  read(key: string, options?: StateOptions): Promise<StateEntry | undefined>
  /** Up to `length` bytes from `offset` on; fewer at the end of the value. */
  read(key: string, offset: number, length: number, options?: StateOptions): Promise<Uint8Array>
  async read(
    key: string,
    offset: number | StateOptions = {},
    length?: number,
    options: StateOptions = {},
  ): Promise<StateEntry | undefined | Uint8Array> {
    checkName('a key', key)
    if (typeof offset === 'object') return this.#readWhole(key, offset)
    const from = checkOffset('offset', offset)
    const bytes = checkOffset('length', length as number)
    return this.#read(options, (connection, timeoutMs) => connection.stateRead(key, from, bytes, timeoutMs))
  }

  async #readWhole(key: string, options: StateOptions): Promise<StateEntry | undefined> {
    checkOptions(options)
    options.signal?.throwIfAborted()
    const found = this.#link.current?.connection.statePeek(key)
    if (found === undefined) {
      return this.#read(options, (connection, timeoutMs) => connection.stateFetch(key, timeoutMs))
    }
    // A program that polls with `await read(key)` would else keep its event loop from everything, the end of the
    // connection included.
    this.#readsInARow += 1 + (found?.data.byteLength ?? 0) / 4096
    if (this.#readsInARow >= readsPerTurn) {
      this.#readsInARow = 0
      await turn()
    }
    return found ?? undefined
  }

  /**
   * Publishes a key, which need not exist yet: from now on `read` gets its value without asking anybody in the process.
   * Every change, whoever makes it, is published before it is reported done. A value larger than the capacity is not,
   * until a smaller one is set. Publishing again may give a key more room, never less.
   *
   * @returns its capacity, bytes
   * @throws {StateError} `ERR_STATE_MEMORY` when the memory for published values (option `publications` of the process)
   *   is used up · `ERR_STATE_TYPE` for an array · `ERR_STATE_CONTENDED`
   */
  async publish(key: string, options: PublishOptions = {}): Promise<number> {
    checkName('a key', key)
    const { capacity } = options
    if (capacity !== undefined) checkOffset('capacity', capacity)
    return this.#write(options, (connection, timeoutMs) => connection.statePublish(key, capacity, timeoutMs))
  }

  /** Ends that; the value stays. @returns whether the key was published. */
  async unpublish(key: string, options: StateOptions = {}): Promise<boolean> {
    checkName('a key', key)
    return this.#write(options, (connection, timeoutMs) => connection.stateUnpublish(key, timeoutMs))
  }

  /** @returns whether there was such a key. */
  async delete(key: string, options: StateOptions & { readonly ifVersion?: bigint } = {}): Promise<boolean> {
    checkName('a key', key)
    return this.#write(options, (connection, timeoutMs) => connection.stateDelete(key, options.ifVersion, timeoutMs))
  }

  /** What is known of a key, or undefined. */
  async stat(key: string, options: StateOptions = {}): Promise<KeyInfo | undefined> {
    checkName('a key', key)
    const found = await this.#orUndefined(
      this.#read(options, (connection, timeoutMs) => connection.stateStat(key, timeoutMs)),
    )
    return found && keyInfo(found)
  }

  /** Keys with a prefix, in byte order. Keys that come or go during the iteration may or may not be seen. */
  async *keys(options: StateOptions & { readonly prefix?: string } = {}): AsyncGenerator<KeyInfo, void, void> {
    const prefix = options.prefix ?? ''
    for (let after = ''; ;) {
      const page = await this.#read(options, (connection, timeoutMs) =>
        connection.stateKeys(prefix, after, pageKeys, timeoutMs),
      )
      for (const key of page) yield keyInfo(key)
      const last = page.at(-1)
      if (!last || page.length < pageKeys) return
      after = last.key
    }
  }

  /**
   * Waits for a reader/writer lock. Fair to writers. It belongs to this connection and is released when that ends.
   *
   * @throws {StateError} `ERR_STATE_LOCK_TIMEOUT`
   * @throws {PayloadError} `ERR_BACKPRESSURE` when 4,096 others are waited for
   */
  async lock(name: string, mode: 'read' | 'write' = 'write', options: StateOptions = {}): Promise<StateLock> {
    checkName('the name of a lock', name)
    if (mode !== 'read' && mode !== 'write') {
      throw new ArgumentError(`lock: mode: expected "read" or "write", received ${JSON.stringify(mode)}`)
    }
    checkOptions(options)
    const started = performance.now()
    const session = await this.#link.session(options.timeoutMs ?? connectMs, options.signal)
    options.signal?.throwIfAborted()
    const { connection } = session
    const timeoutMs = timeLeft(options, started) ?? session.info.defaultTimeoutMs
    try {
      const request = connection.lock(name, mode, timeoutMs)
      const handle = await this.#granted(session, request, options.signal)
      return new ClientLock(session, handle, name, mode)
    } catch (error) {
      options.signal?.throwIfAborted()
      throw fromNative(error, { process: this.#processId })
    }
  }

  async #granted(
    session: Session,
    request: { readonly id: bigint; readonly promise: Promise<bigint> },
    signal: AbortSignal | undefined,
  ): Promise<bigint> {
    if (!signal) return request.promise
    try {
      return await abortable(request.promise, signal)
    } catch (error) {
      if (signal.aborted) {
        session.cancel(request.id)
        // It may have been granted before the cancellation arrived.
        request.promise.then((handle) => session.connection.unlock(handle, unlockMs)).catch(() => undefined)
      }
      throw error
    }
  }

  /** An operation that may be repeated, within the same time. */
  async #read<Result>(
    options: StateOptions,
    operation: (connection: NativeConnection, timeoutMs: number) => Promise<Result>,
  ): Promise<Result> {
    const started = performance.now()
    try {
      return await this.#write(options, operation, started)
    } catch (error) {
      if (!isLost(error) || this.#link.closed || timeLeft(options, started) === leastMs) throw error
      return this.#write(options, operation, started)
    }
  }

  /** @param started  since when `timeoutMs` counts */
  async #write<Result>(
    options: StateOptions,
    operation: (connection: NativeConnection, timeoutMs: number) => Promise<Result>,
    started = performance.now(),
  ): Promise<Result> {
    checkOptions(options)
    const { signal } = options
    const { connection, info } = await this.#link.session(timeLeft(options, started) ?? connectMs, signal)
    signal?.throwIfAborted()
    const timeoutMs = timeLeft(options, started) ?? info.defaultTimeoutMs
    try {
      const result = operation(connection, timeoutMs)
      return await (signal ? abortable(result, signal) : result)
    } catch (error) {
      signal?.throwIfAborted()
      throw fromNative(error, { process: this.#processId })
    }
  }

  async #orUndefined<Result>(promise: Promise<Result>): Promise<Result | undefined> {
    try {
      return await promise
    } catch (error) {
      if (codeOf(error) === 'ERR_STATE_NOT_FOUND') return undefined
      throw error
    }
  }
}

const unlockMs = 5_000

class ClientLock implements StateLock {
  readonly name: string
  readonly mode: 'read' | 'write'
  readonly #session: Session
  readonly #handle: bigint
  #released: Promise<void> | undefined

  constructor(session: Session, handle: bigint, name: string, mode: 'read' | 'write') {
    this.#session = session
    this.#handle = handle
    this.name = name
    this.mode = mode
  }

  get released(): boolean {
    return this.#released !== undefined || this.#session.closed
  }

  release(): Promise<void> {
    this.#released ??= this.#release()
    return this.#released
  }

  async #release(): Promise<void> {
    if (this.#session.closed) {
      throw new StateError('ERR_STATE_LOCK_LOST', `lock ${this.name} was released when its connection ended`)
    }
    try {
      await this.#session.connection.unlock(this.#handle, unlockMs)
    } catch (error) {
      throw fromNative(error)
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.release()
  }
}

/** Of `timeoutMs`, if that was given: connecting and asking, once or twice, take no longer together. */
function timeLeft({ timeoutMs }: StateOptions, started: number): number | undefined {
  return timeoutMs === undefined ? undefined : Math.max(timeoutMs - (performance.now() - started), leastMs)
}

function checkOptions(options: StateOptions): void {
  checkKnown('state', options, knownOptions)
  checkTimeout('state', options.timeoutMs)
}
