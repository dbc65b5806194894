/** The control plane as its users see it, whether it runs in this OS process or behind a socket. */

/** What a process is created with. Fixed for its life. */
export interface ProcessOptions {
  /** The application: path of its entry file, or the name of one that was deployed. Default: the cluster's own. */
  readonly app?: string
  /** Workers that run its functions, 1 … 512. */
  readonly workers?: number
  /** Async invocations one worker runs at a time, 1 … 1024. */
  readonly concurrency?: number
  /** Limit of its state, bytes. */
  readonly memoryBytes?: number
  /** Limit of payloads on their way, bytes. */
  readonly poolBytes?: number
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

export interface WorkerDescription {
  readonly index: number
  readonly pid: number
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
  /** Valid for this process only. */
  readonly token: string
}

export interface ProcessHandle {
  readonly process: ProcessDescription
  readonly endpoint: Endpoint
}

export interface AppDescription {
  readonly name: string
  /** Path of the entry file. */
  readonly entry: string
  /** Of the bundle's contents. */
  readonly hash: string
  readonly exports: readonly string[]
  readonly bundleBytes: number
}

export interface DeployRequest {
  /** Absolute path of the entry file, on the agent's machine. */
  readonly entry: string
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
  /** Lets running calls finish; new ones are refused. */
  drain(id: string, timeoutMs: number): Promise<void>
  /** Ends the process; its state goes unless `keep`. */
  remove(id: string, options: { readonly timeoutMs: number; readonly keep: boolean }): Promise<void>
  deploy(request: DeployRequest): Promise<AppDescription>
  /** From byte `offset` on; waits up to `waitMs` when there is nothing new. A negative offset counts from the end. */
  logs(id: string, offset: number, waitMs: number, signal?: AbortSignal): Promise<LogChunk>
  close(): Promise<void>
}
