/** The control plane as its users see it, whether it runs in this OS process or behind a socket. */
import type { CodecName } from './codecs.js'
import type { TokenVerb } from './token.js'

/** What a process is created with. Fixed for its life. */
export interface ProcessOptions {
  /** The application: path of its entry file, or the name of one that was deployed. Default: the cluster's own. */
  readonly app?: string
  /** Workers that run its TypeScript functions, 1 … 512; those that run native ones, 1 … 1000, if it has no others. */
  readonly workers?: number
  /** Workers that run its native functions, 1 … 1000. Default: the value of `workers`. */
  readonly nativeWorkers?: number
  /** Limit of the private memory of one native worker, bytes. */
  readonly workerMemoryBytes?: number
  /** Most workers that leases may have at a time, 0 … 1000. */
  readonly leaseWorkers?: number
  /** Async invocations one worker runs at a time, 1 … 1024. */
  readonly concurrency?: number
  /** Limit of its state, bytes. */
  readonly memoryBytes?: number
  /** Limit of payloads on their way, bytes. */
  readonly poolBytes?: number
  /** Limit of published values, bytes. */
  readonly publicationBytes?: number
  /** How long workers poll before they sleep: −1 always, 0 never. */
  readonly hotMs?: number
  /** Calls waiting or running at a time, 16 … 4096. */
  readonly backlog?: number
  /** Deadline of calls that name none. */
  readonly defaultTimeoutMs?: number
  /** After a missed deadline, until the worker is killed. */
  readonly graceMs?: number
  /** Largest payload in one piece, bytes. */
  readonly maxContiguousBytes?: number
}

export type ProcessState = 'starting' | 'ready' | 'draining' | 'failed'

/** `node` runs TypeScript, `native` runs native functions. */
export type WorkerKind = 'node' | 'native'

export interface WorkerDescription {
  readonly index: number
  readonly pid: number
  readonly kind: WorkerKind
  /** It is for leases, and serves nobody else. */
  readonly leased: boolean
  readonly state: string
}

/** One process of a cluster. */
export interface ProcessDescription {
  readonly id: string
  readonly state: ProcessState
  /** Why it failed. */
  readonly reason?: string
  readonly app: string
  /** Of the process host. */
  readonly pid?: number
  readonly host: string
  readonly port: number
  readonly workers: readonly WorkerDescription[]
  readonly memoryBytes: number
  /** Name of its shared memory object. */
  readonly segment: string
  /** Whether its state was there before: left by an earlier host. */
  readonly attached: boolean
  /** How often its host had to be restarted. */
  readonly restarts: number
  readonly createdMs: number
  /** What its workers are woken by: `mqueue`, or `futex` with the reason. */
  readonly doorbell: string
}

/** Where and with what a client connects to a process. */
export interface Endpoint {
  readonly host: string
  readonly port: number
  /** Opens connections to this process (src/token.ts), soon or never: it is short-lived. */
  readonly token: string
}

/** What a token for somebody else shall allow, and for how long. */
export interface TokenRequest {
  readonly verbs: readonly TokenVerb[]
  readonly ttlMs: number
}

export interface ProcessHandle {
  readonly process: ProcessDescription
  readonly endpoint: Endpoint
}

/**
 * How a native function is called: `raw` is rFaaS' `uint32_t f(void* args, uint32_t size, void* res)`, `c` is
 * PRAAS_FUNCTION of praas.h, `praas` is PraaS' `int f(Invocation, Context&)`.
 */
export type NativeAbi = 'raw' | 'c' | 'praas'

/** A native function of an application. */
export interface NativeFunctionDescription {
  readonly name: string
  /** Path of the shared object it was deployed from. */
  readonly library: string
  readonly symbol: string
  readonly abi: NativeAbi
}

export interface AppDescription {
  readonly name: string
  /** Path of the entry file; of an application of libraries alone, the first of them. */
  readonly entry: string
  /** Of its contents: the bundle, the libraries, and which functions of them are offered. */
  readonly hash: string
  readonly language: 'typescript' | 'native' | 'mixed'
  /** Names of its functions in all languages, and what else its entry module exports. */
  readonly exports: readonly string[]
  /** Size of the bundle; 0 without TypeScript. */
  readonly bundleBytes: number
  /** By name; empty for an application in TypeScript. */
  readonly native: readonly NativeFunctionDescription[]
}

/** What a deployment says about one native function. */
export interface NativeFunctionRequest {
  /** Absolute path of the shared object that has it, where several do. */
  readonly library?: string
  /** What it is called there. Default: its name. */
  readonly symbol?: string
  /** Default: found out. */
  readonly abi?: NativeAbi
  /** Largest result, bytes; for `raw`, which cannot bound it otherwise. */
  readonly maxOutputBytes?: number
  readonly idempotent?: boolean
  readonly input?: CodecName
  readonly output?: CodecName
}

/** Paths are absolute and of the agent's machine. */
export interface DeployRequest {
  /** A module in TypeScript or JavaScript, a shared object, or a function table. Default: the first of `native`. */
  readonly entry?: string
  /** Shared objects and function tables. */
  readonly native?: readonly string[]
  /** The native functions that are offered, by name. Default: all there are. */
  readonly functions?: Readonly<Record<string, NativeFunctionRequest>>
  /** Largest result of raw functions that name none, bytes. Default: 1 MiB, or what the process allows in one piece. */
  readonly maxOutputBytes?: number
  /** Default: the entry's file name without extension. */
  readonly name?: string
  /** Packages that are not bundled but resolved from the application at run time. */
  readonly external?: readonly string[]
}

export interface LogChunk {
  readonly text: string
  /** Where the next chunk begins. */
  readonly next: number
}

export interface WaitOptions {
  readonly timeoutMs: number
  readonly signal?: AbortSignal | undefined
  /**
   * Told where the host listens as soon as it does, while its workers are still starting: a client can connect meanwhile.
   * May be told again. Only an agent in this OS process says so.
   */
  readonly onListening?: ((endpoint: Endpoint) => void) | undefined
}

/** Placement, life and death of processes. Never on the path of a call. */
export interface ControlPlane {
  /** Where it is, for messages. */
  readonly url: string
  /** The same for other machines, when it listens for them. */
  readonly listenUrl?: string | undefined
  list(): Promise<ProcessDescription[]>
  /** @throws {ProcessError} `ERR_PROCESS_UNKNOWN` */
  find(id: string, wait: WaitOptions): Promise<ProcessHandle>
  /** Creates the process unless it is there, and waits until it takes calls. */
  ensure(id: string, options: ProcessOptions, wait: WaitOptions): Promise<ProcessHandle>
  /** A token of a process; its connections end with it. */
  token(id: string, request: TokenRequest): Promise<string>
  /** Lets running calls finish; new ones are refused. */
  drain(id: string, timeoutMs: number): Promise<void>
  /** Ends the process; its state goes unless `keep`. */
  remove(id: string, options: { readonly timeoutMs: number; readonly keep: boolean }): Promise<void>
  deploy(request: DeployRequest): Promise<AppDescription>
  /** From byte `offset` on; waits up to `waitMs` when there is nothing new. A negative offset counts from the end. */
  logs(id: string, offset: number, waitMs: number, signal?: AbortSignal): Promise<LogChunk>
  close(): Promise<void>
}
