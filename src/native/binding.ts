/**
 * The one place where TypeScript meets the native addon: its loader and the types of what it exports.
 *
 * Everything here runs on the JS thread. Times are milliseconds (fractions allowed) unless the name says otherwise; ids and
 * versions are `bigint`. Native failures throw or reject with an `Error` that carries `code`, and for OS failures `errno`
 * and `syscall`; src/errors.ts turns these into the public classes.
 */
import { dirname } from 'node:path'
import { hostExecutable, loadAddon, nativeWorkerExecutable, type LoadedAddon } from './load.js'
import type { PENDING } from './outcome.js'

export interface Capabilities {
  readonly version: string
  readonly napi: number
  /** Built without optimisation and with assertions: nothing to measure with. */
  readonly debug: boolean
  readonly transports: readonly string[]
  /** Names of what this build or host lacks, with the reason. */
  readonly missing: Readonly<Record<string, string>>
}

/** What `surveyRdma` says. */
export interface RdmaSurvey {
  /** Why devices cannot even be looked for. */
  readonly error?: string
  readonly devices?: readonly RdmaDevice[]
}

export interface RdmaDevice {
  readonly name: string
  /** Why it cannot be opened. */
  readonly error?: string
  readonly maxQueuePairs: number
  readonly maxMemoryRegions: number
  readonly ports: readonly RdmaPort[]
}

export interface RdmaPort {
  readonly number: number
  readonly state: string
  readonly active: boolean
  /** RoCE; else InfiniBand. */
  readonly ethernet: boolean
  readonly mtuBytes: number
  readonly lid: number
  readonly gids: readonly { readonly index: number; readonly address: string; readonly type: string }[]
}

export interface NativeConnectOptions {
  host: string
  port: number
  process: string
  token: string
  transport: 'auto' | 'shm' | 'verbs' | 'tcp'
  timeoutMs: number
  windowBytes: number
  checksum: boolean
  /** How long a waiting call polls before it blocks, microseconds. */
  spinUs: number
  /** Of a connection to a worker of a lease: what `lease` has answered with, and which of its workers, from 0. */
  leaseKey?: string
  leaseWorker?: number
}

export interface NativeServerInfo {
  readonly process: string
  readonly transport: string
  readonly upgradeReason: string
  readonly maxContiguous: number
  readonly maxInFlight: number
  readonly defaultTimeoutMs: number
  readonly hostPid: number
}

export interface NativeFunctionRef {
  readonly index: number
  readonly flags: number
}

export interface NativeKeyInfo {
  readonly key: string
  readonly kind: 'value' | 'array'
  readonly elementType: number
  readonly bytes: number
  readonly version: bigint
  readonly modifiedMs: number
}

/** What an operation does not use is left out. LeaseRequest of protocol/lease_messages.h. */
export interface NativeLeaseRequest {
  readonly lease?: bigint
  readonly workers?: number
  /** 0 any, 1 node, 2 native. */
  readonly lane?: number
  /** How long its workers poll after a call: −1 always, 0 never. */
  readonly hotMs?: number
  readonly ttlMs?: number
  readonly waitMs?: number
  readonly name?: string
  readonly worker?: number
}

export interface NativeLeaseReply {
  readonly lease: bigint
  /** For connections to its workers; empty unless the lease was taken. */
  readonly key: string
  readonly ttlMs: number
  /** Of its workers, when it was taken. */
  readonly pids: readonly number[]
  /** JSON. */
  readonly text: string
}

export interface NativeLeaseNotice {
  readonly lease: bigint
  /** LeaseEvent of protocol/frame.h. */
  readonly event: number
  /** Why it has ended; else empty. */
  readonly code: string
  readonly worker: number
  readonly remainingMs: number
  readonly text: string
}

export interface NativeSetOptions {
  ifVersion?: bigint
  offset?: number
  timeoutMs: number
}

/** A client's connection to one process. Keeps the event loop alive only while something is in flight. */
export interface NativeConnection {
  readonly info: NativeServerInfo
  /** Where `invokeSync` leaves small results. */
  readonly scratch: Uint8Array
  /** Where `invoke` leaves small results: places of 64 bytes. */
  readonly small: Uint8Array
  /** How many of them were taken, counted by whoever takes them, in the order in which their promises were settled. */
  readonly smallTaken: Uint32Array
  /** One number: when `invokeSync` was called last, milliseconds of the monotonic clock, at most a tick (10 ms) too early. */
  readonly calledMs: Float64Array
  /** One byte, not 0 once the connection was closed or lost: as far as native code knows, without asking it. */
  readonly ended: Uint8Array
  /** Id of the call that `invoke` or `lease` started last, for `cancel`. */
  readonly lastCall: bigint
  readonly inFlight: number
  resolve(name: string, timeoutMs: number): Promise<NativeFunctionRef>
  resolveSync(name: string, timeoutMs: number): NativeFunctionRef
  /**
   * Starts a call and returns the promise of its reply; `output` (from `allocate`) receives the result in place. A rejected call carries `code`; for ERR_FUNCTION_THREW and ERR_WORKER_CRASHED `message` is the JSON detail.
   * `input` must not change until it settles.
   */
  invoke(
    fn: number,
    input: Uint8Array,
    output: Uint8Array | undefined,
    flags: number,
    timeoutMs: number,
  ): Promise<Uint8Array>
  /** With `SMALL_RESULTS` in `flags`, a result may be a place in `small`, times 256, plus its size: until the promise's first reaction has run. */
  invoke(
    fn: number,
    input: Uint8Array,
    output: undefined,
    flags: typeof SMALL_RESULTS,
    timeoutMs: number,
  ): Promise<Uint8Array | number>
  /** The result, or how many bytes of `scratch` are the result until the next call. */
  invokeSync(
    fn: number,
    input: Uint8Array,
    output: Uint8Array | undefined,
    flags: number,
    timeoutMs: number,
  ): Uint8Array | number
  cancel(id: bigint): void
  openStream(
    fn: number,
    flags: number,
    timeoutMs: number,
    events: {
      chunk(bytes: Uint8Array): void
      room(bytes: number): void
      end(error: Error | undefined): void
    },
  ): bigint
  /** Bytes taken, at most the room announced. */
  sendChunk(id: bigint, bytes: Uint8Array, last: boolean): number
  consumed(id: bigint, bytes: number): void
  /** Zero-copy memory for inputs and outputs. Detached by `release` and by `close`. */
  allocate(bytes: number): Uint8Array
  release(buffer: Uint8Array): void
  stateGet(key: string, timeoutMs: number): Promise<{ data: Uint8Array; version: bigint }>
  stateSet(key: string, data: Uint8Array, options: NativeSetOptions): Promise<bigint>
  stateAppend(key: string, data: Uint8Array, timeoutMs: number): Promise<bigint>
  stateDelete(key: string, ifVersion: bigint | undefined, timeoutMs: number): Promise<boolean>
  stateStat(key: string, timeoutMs: number): Promise<NativeKeyInfo>
  stateRead(key: string, offset: number, length: number, timeoutMs: number): Promise<Uint8Array>
  /**
   * The published value, read in place; null: there is no such key; undefined: it cannot be read from here (not published,
   * being written, on another machine), and `stateFetch` asks the host, by which this connection learns where it lies.
   */
  statePeek(key: string): { data: Uint8Array; version: bigint } | null | undefined
  stateFetch(key: string, timeoutMs: number): Promise<{ data: Uint8Array; version: bigint } | undefined>
  /** @returns the capacity. */
  statePublish(key: string, capacity: number | undefined, timeoutMs: number): Promise<number>
  stateUnpublish(key: string, timeoutMs: number): Promise<boolean>
  stateKeys(prefix: string, after: string, limit: number, timeoutMs: number): Promise<NativeKeyInfo[]>
  lock(
    name: string,
    mode: 'read' | 'write',
    timeoutMs: number,
  ): { readonly id: bigint; readonly promise: Promise<bigint> }
  unlock(lock: bigint, timeoutMs: number): Promise<void>
  /** AdminOp as in protocol/frame.h; the reply is JSON text. */
  admin(op: number, argument: string, timeoutMs: number): Promise<string>
  /** LeaseOp as in protocol/frame.h. */
  lease(op: number, request: NativeLeaseRequest, timeoutMs: number): Promise<NativeLeaseReply>
  leaseSync(op: number, request: NativeLeaseRequest, timeoutMs: number): NativeLeaseReply
  /** Called with what the host says of leases unasked, once the event loop turns; does not keep it alive. */
  onLeaseNotice(callback: (notice: NativeLeaseNotice) => void): void
  /** Called once when the connection ends other than by close(). */
  onLost(callback: (error: Error) => void): void
  close(): void
}

export interface NativeWorkerHooks {
  /**
   * Runs one invocation. Return bytes (or undefined for none) to complete it now, or `PENDING` to complete it later with
   * `complete` or `fail`. Throwing fails it. `input` is valid until it is completed; `handed` says which invocation it is.
   */
  invoke(input: Uint8Array): Uint8Array | undefined | typeof PENDING
  /** A running invocation was cancelled or missed its deadline. */
  cancelled(handle: bigint): void
  /** No new invocations will come; exit when the running ones are finished. */
  drain(): void
  /** Chunks or room for the streams of this worker may have come. */
  streams(): void
}

/** Flag of `NativeConnection.invoke`. */
export const SMALL_RESULTS = 1 << 16

export interface NativeWorker {
  readonly participant: number
  /** What `hooks.invoke` is called for, as src/worker/handed.ts reads it. */
  readonly handed: ArrayBuffer
  readonly processId: string
  readonly concurrency: number
  readonly maxContiguous: number
  readonly defaultTimeoutMs: number
  /** Resolves with the application to load (JSON) once the host says so. */
  waitForLoad(): Promise<string>
  /** Registers the functions and starts taking calls. */
  start(functions: readonly { name: string; flags: number }[], hooks: NativeWorkerHooks): void
  loadFailed(why: string): void
  complete(handle: bigint, result: Uint8Array | undefined): boolean
  fail(handle: bigint, code: string, message: string): boolean
  /** A view of the result's final place. */
  output(handle: bigint, bytes: number): Uint8Array
  nextChunk(handle: bigint): Uint8Array | null | undefined
  writeChunk(handle: bigint, bytes: Uint8Array): boolean
  findFunction(name: string): number | undefined
  /** `deadlineMs` is on the machine's monotonic clock; `parent` is the invocation that calls: while it waits, it does not count against the worker's concurrency. */
  invoke(
    fn: number,
    input: Uint8Array,
    flags: number,
    depth: number,
    deadlineMs: number,
    parent: bigint,
  ): { readonly id: bigint; readonly promise: Promise<Uint8Array> }
  /** The result, or how many bytes of `handed`'s scratch are the result until the next call. */
  invokeSync(fn: number, input: Uint8Array, flags: number, depth: number, deadlineMs: number): Uint8Array | number
  cancelNested(id: bigint): void
  stateGet(key: string, timeoutMs: number): { data: Uint8Array; version: bigint } | undefined
  /** Zero-copy; released when the invocation `handle` ends (and detached then under PRAAS_CHECK_VIEWS=1). */
  stateView(handle: bigint, key: string, timeoutMs: number): Uint8Array | undefined
  stateArray(key: string, elementType: number, bytes: number, timeoutMs: number): Uint8Array
  stateSet(key: string, data: Uint8Array, options: NativeSetOptions): bigint
  stateAppend(key: string, data: Uint8Array, timeoutMs: number): bigint
  stateRead(key: string, offset: number, length: number, timeoutMs: number): Uint8Array
  stateDelete(key: string, ifVersion: bigint | undefined, timeoutMs: number): boolean
  stateStat(key: string, timeoutMs: number): NativeKeyInfo | undefined
  statePublish(key: string, capacity: number | undefined, timeoutMs: number): number
  stateUnpublish(key: string, timeoutMs: number): boolean
  stateKeys(prefix: string, after: string, limit: number, timeoutMs: number): NativeKeyInfo[]
  lock(
    handle: bigint,
    name: string,
    mode: 'read' | 'write',
    timeoutMs: number,
  ): { readonly id: bigint; readonly promise: Promise<bigint> }
  unlock(lock: bigint): void
}

export interface NativeBinding {
  capabilities(): Capabilities
  /** Connects, authenticates and upgrades on a thread of the pool. */
  connect(options: NativeConnectOptions): Promise<NativeConnection>
  /** Attaches this OS process to its host through the inherited fd. Blocks in a pool thread until the host attaches it. */
  attachWorker(fd: number): Promise<NativeWorker>
  /** RDMA devices of this machine, or why there can be none, as JSON text: `RdmaSurvey`. */
  surveyRdma(): string
  /**
   * Everything in a segment and the outcome of every invariant check, as JSON text; also of one that hosts refuse because
   * it is damaged.
   *
   * @param processId  whose it should be; empty: unknown
   */
  inspectSegment(name: string, processId: string): string
  unlinkSharedMemory(name: string): boolean
  unlinkMessageQueue(name: string): boolean
  /** Whether a live host holds the segment's lock. */
  segmentLocked(name: string): boolean
  /** Limits `praas doctor` shows. */
  limits(): {
    memlockBytes: number
    msgqueueBytes: number
    openFiles: number
    openFilesHard: number
  }
  raiseOpenFiles(): number
  /** Field 22 of /proc/PID/stat as text, or undefined when there is no such process. */
  processStartTime(pid: number): string | undefined
}

let loaded: LoadedAddon | undefined

/**
 * The addon, loaded at first use.
 *
 * @throws {PraasError} `ERR_ADDON_LOAD` with every path tried, its error, and the remedy.
 */
export function native(): NativeBinding {
  loaded ??= loadAddon()
  return loaded.binding
}

/** Folder of the addon, where its build has put everything else it makes. */
export function addonFolder(): string {
  loaded ??= loadAddon()
  return dirname(loaded.path)
}

/** Path of the addon. */
export function addonPath(): string {
  loaded ??= loadAddon()
  return loaded.path
}

/** Path of the executable that runs process hosts. */
export function hostExecutablePath(): string {
  loaded ??= loadAddon()
  return hostExecutable(loaded.path)
}

/** Path of the executable that describes function libraries and runs native functions. */
export function nativeWorkerExecutablePath(): string {
  loaded ??= loadAddon()
  return nativeWorkerExecutable(loaded.path)
}
