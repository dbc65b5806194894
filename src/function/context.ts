/** What a function sees of the process it runs in. */
import type { CodecName, TypedArray, TypedArrayConstructor } from '../codecs.js'
import type { Process } from '../client/process.js'

export interface NestedCallOptions {
  /** Milliseconds; never longer than what is left of the caller's own deadline, which is the default. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
  /** May run again when a worker dies. Default: what the function declares. */
  readonly idempotent?: boolean
}

/** The running invocation and its process. Valid until the handler settles. */
export interface Context {
  readonly processId: string
  /** Names the invocation in logs; unique within the process while it runs. */
  readonly invocationId: bigint
  readonly functionName: string
  /** How many calls deep: 0 when a client called. */
  readonly depth: number
  /** Milliseconds left until the deadline. */
  readonly remainingMs: number
  /** When the caller gets `ERR_INVOCATION_TIMEOUT`. */
  readonly deadline: Date
  /** Aborts when the caller cancels, goes away, or the deadline passes. */
  readonly signal: AbortSignal
  readonly state: WorkerState

  /**
   * Calls another function of this process. While it waits, the caller does not count against its worker's concurrency,
   * so one worker can serve nested calls. Input and result are encoded as the called function declares.
   *
   * @throws what a client's `invoke` throws
   */
  invoke<Output = Uint8Array>(functionName: string, input?: unknown, options?: NestedCallOptions): Promise<Output>
  /**
   * The same, blocking the worker.
   *
   * @throws {InvocationError} `ERR_INVOCATION_DEADLOCK` at once when no other worker is free to serve it.
   */
  invokeSync<Output = Uint8Array>(
    functionName: string,
    input?: unknown,
    options?: Omit<NestedCallOptions, 'signal'>,
  ): Output
  /**
   * Another process of the same cluster, created on first use; see `Cluster.process`. The connection is kept for later
   * invocations of this worker.
   */
  process(id: string): Promise<Process>
  /** `byteLength` bytes where the result has to lie: fill and return them, and no copy is made. Contents are undefined. */
  output(byteLength: number): Uint8Array
  /** Writes a line with process, worker and invocation to the log of the process. */
  log(message: string, ...details: readonly unknown[]): void
}

export interface StateWaitOptions {
  /** How long to wait for other writers, milliseconds. Default: what is left until the deadline. */
  readonly timeoutMs?: number
}

export interface StateSetOptions extends StateWaitOptions {
  /** Writes only when this is the current version; 0n: only when there is no such key. */
  readonly ifVersion?: bigint
  /** Replaces bytes from here on in a copy of the current value, which grows as needed. */
  readonly offset?: number
}

export interface StateDeleteOptions extends StateWaitOptions {
  readonly ifVersion?: bigint
}

export interface StatePublishOptions extends StateWaitOptions {
  /** Largest value that can be read without asking, bytes. Default: the present size. Rounded up to whole pages. */
  readonly capacity?: number
}

export interface StateEntry {
  readonly data: Uint8Array
  readonly version: bigint
}

/** What is known of a key without reading it. */
export interface KeyInfo {
  readonly key: string
  readonly kind: 'value' | 'array'
  /** Of an array: the typed array's name. */
  readonly elementType?: string
  readonly byteLength: number
  /** Grows with every change in the process and is never used twice. */
  readonly version: bigint
  readonly modified: Date
}

/** A lock that is held until released, or until its owner (invocation or client connection) ends. */
export interface StateLock {
  readonly name: string
  readonly mode: 'read' | 'write'
  readonly released: boolean
  /** Idempotent. Waits for nothing: a client awaits what it has asked for under the lock before it releases that. */
  release(): Promise<void>
  [Symbol.asyncDispose](): Promise<void>
}

export interface LockOptions {
  /** Milliseconds. Default: what is left until the deadline. */
  readonly timeoutMs?: number
  readonly signal?: AbortSignal
}

/**
 * State of the process, in memory shared by all its workers. It outlives invocations, workers and hosts.
 *
 * Everything but `lock` is synchronous and takes microseconds. Keys are 1 … 255 bytes of UTF-8.
 *
 * @throws {StateError} `ERR_STATE_MEMORY` when the process's memory limit is reached · `ERR_STATE_CONTENDED` ·
 *   `ERR_STATE_TYPE` for a value used as an array or the reverse
 */
export interface WorkerState {
  /** A copy of the value, or undefined. */
  get(key: string, options?: StateWaitOptions): Uint8Array | undefined
  /** A copy of the value with its version, for compare-and-set. */
  entry(key: string, options?: StateWaitOptions): StateEntry | undefined
  /**
   * The value in place, or undefined. It is pinned and does not change, even when the key is set anew, and is valid until
   * the handler settles. Do not write to it.
   */
  view(key: string, options?: StateWaitOptions): Uint8Array | undefined
  /**
   * Replaces the value atomically. @returns its version.
   * @throws {StateError} `ERR_STATE_VERSION` when `ifVersion` is not the current version
   */
  set(key: string, data: Uint8Array | ArrayBufferView, options?: StateSetOptions): bigint
  /** Sets the value if `version` is still the current one (0n: if there is none). @returns the new version, or undefined. */
  compareAndSet(
    key: string,
    version: bigint,
    data: Uint8Array | ArrayBufferView,
    options?: StateWaitOptions,
  ): bigint | undefined
  /**
   * The shared array `key`, created with zeros when absent. All workers see the same memory, and writes are visible at
   * once: use locks or `Atomics`-like discipline of your own. Stays valid beyond the invocation.
   *
   * @throws {StateError} `ERR_STATE_RANGE` when it exists with another length, `ERR_STATE_TYPE` with another element type
   */
  array<Elements extends TypedArray>(
    key: string,
    constructor: TypedArrayConstructor<Elements>,
    length: number,
    options?: StateWaitOptions,
  ): Elements
  /** Adds bytes to the end of the value, which is created when absent. @returns its version. */
  append(key: string, data: Uint8Array | ArrayBufferView, options?: StateWaitOptions): bigint
  /**
   * A copy of up to `length` bytes from `offset` on; fewer at the end of the value.
   * @throws {StateError} `ERR_STATE_NOT_FOUND`, `ERR_STATE_RANGE`
   */
  read(key: string, offset: number, length: number, options?: StateWaitOptions): Uint8Array
  /** @returns whether there was such a key. */
  delete(key: string, options?: StateDeleteOptions): boolean
  stat(key: string, options?: StateWaitOptions): KeyInfo | undefined
  /**
   * Publishes a key, which need not exist yet: clients then read its value without a message to this process
   * (`process.state.read`). Every change is published before it returns. A value larger than the capacity is not, until a
   * smaller one is set. Publishing again may give a key more room, never less.
   *
   * @returns its capacity, bytes
   * @throws {StateError} `ERR_STATE_MEMORY` when the memory for published values (option `publications` of the process)
   *   is used up · `ERR_STATE_TYPE` for an array
   */
  publish(key: string, options?: StatePublishOptions): number
  /** @returns whether the key was published. The value stays. */
  unpublish(key: string, options?: StateWaitOptions): boolean
  /** Keys with a prefix, in byte order. Keys that come or go during the iteration may or may not be seen. */
  keys(options?: { readonly prefix?: string } & StateWaitOptions): Iterable<KeyInfo>
  /**
   * Waits for a reader/writer lock. Fair to writers, released when the invocation ends at the latest.
   *
   * @throws {StateError} `ERR_STATE_LOCK_TIMEOUT`
   */
  lock(name: string, mode?: 'read' | 'write', options?: LockOptions): Promise<StateLock>
}

export type { CodecName }
