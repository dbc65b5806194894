/** What the host says of leases. Times are nanoseconds unless their names say otherwise. */
import type { WorkerKind } from '../control.js'

/** What a lease, one of its workers, or all leases of a process have used. */
export interface LeaseUse {
  /** Since workers were given to the lease until they were taken back, summed over workers. */
  readonly allocatedNs: number
  /** Awake and not inside functions: waiting for calls, receiving and answering them. */
  readonly pollingNs: number
  /** Inside functions. */
  readonly executionNs: number
  readonly calls: number
  /** Calls that were answered with an error. */
  readonly failures: number
  /** Of inputs. */
  readonly bytesIn: number
  /** Of results. */
  readonly bytesOut: number
}

export interface LeasedWorkerReport extends LeaseUse {
  /** From 0. */
  readonly worker: number
  readonly pid: number
}

export interface LeaseReport extends LeaseUse {
  readonly lease: number
  /** Empty unless it was given one. */
  readonly name: string
  /** OS process that has taken it. */
  readonly client: number
  /** Starting: its workers do. */
  readonly state: 'starting' | 'active' | 'ended'
  readonly workers: number
  readonly lane: WorkerKind
  readonly ttlMs: number
  /** Until it expires unless it is renewed. */
  readonly remainingMs: number
  /** How long its workers poll: −1 always, 0 never. */
  readonly hotMs: number
  /** Since its workers were there. */
  readonly heldNs: number
  readonly perWorker: readonly LeasedWorkerReport[]
}

/** The leases of one process. */
export interface LeaseList {
  /** Those that have not ended. */
  readonly leases: readonly LeaseReport[]
  /** Requests for leases that wait for workers. */
  readonly waiting: number
  /** Most workers that leases may have: the process's `leaseWorkers`. */
  readonly capacity: number
  /** How many more they may have now. */
  readonly free: number
  /** Of all leases of this host, those that have ended included. */
  readonly totals: LeaseUse & { readonly leases: number }
}

/** Where the time went until a lease was there. */
export interface LeasePhases {
  /** Waiting for workers that others had. */
  readonly allocateNs: number
  /**
   * From the start of a worker's OS process, or since this lease was given one that started already, until the host had it; the
   * slowest worker's. 0: it was there.
   */
  readonly spawnNs: number
  /** Loading the functions; the slowest worker's. 0: they were loaded. */
  readonly codeNs: number
  /** Connecting to all workers. */
  readonly connectNs: number
}

/** Why a connection to a worker has ended. */
export type Fate =
  /** The worker itself has ended; the text says how. */
  | { readonly ended: 'worker' }
  | { readonly ended: 'lease'; readonly code: string; readonly message: string }
  /** It lives: only the connection has ended. */
  | { readonly ended: 'no' }
