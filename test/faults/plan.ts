/** What a campaign consists of: processes, clients, lanes and keys. All of it follows from the seed. */
import { Random } from './random.js'

export interface ServedProcess {
  readonly id: string
  /** Runs functions in TypeScript. */
  readonly node: boolean
  /** Runs native functions. */
  readonly native: boolean
}

export const processes: readonly ServedProcess[] = [
  { id: 'node', node: true, native: false },
  { id: 'native', node: false, native: true },
  { id: 'mixed', node: true, native: true },
]
export const lanesPerClient = 3
const registersPerLane = 5
/** In each process. */
export const sharedKeys = { log: 'shared/log', register: 'shared/register' } as const
/** Of processes with native functions. Names of messages are not names of state. */
export const mailboxNames = [sharedKeys.log, 'mailbox/b'] as const
export const lockNames = ['lock/a', 'lock/b'] as const
/** Options of the processes; little enough memory to be used up now and then. */
export const limits = {
  maxContiguous: 8 * 2 ** 20,
  memory: 48 * 2 ** 20,
  pool: 128 * 2 ** 20,
  publications: 2 ** 20,
  leaseWorkers: 6,
  defaultTimeoutMs: 5_000,
} as const
export const graceMs = 100
export const workersPerLanguage = 2
/** What happens in an epoch once, in this order: a campaign of two epochs has seen what there is. */
export const disasters = ['stop process', 'kill agent', 'none'] as const
export type Disaster = (typeof disasters)[number]

/** @param epoch  from 0 on */
export const disasterOf = (epoch: number): Disaster => disasters[epoch % disasters.length]!

export interface PlannedKey {
  readonly key: string
  readonly process: ServedProcess
  /** Of each of its records. */
  readonly recordBytes: number
  readonly published: boolean
}

export interface LanePlan {
  readonly registers: readonly PlannedKey[]
  readonly counters: readonly Pick<PlannedKey, 'key' | 'process'>[]
}

export function planLane(seed: string, client: number, lane: number): LanePlan {
  const random = new Random(`${seed}/keys/${client}/${lane}`)
  const registers = Array.from({ length: registersPerLane }, (_, index): PlannedKey => {
    const size = random.weighted({ small: 5, page: 2, large: 2, huge: 1 })
    const published = random.chance(0.4)
    return {
      key: `register/${client}/${lane}/${index}`,
      process: processes[index % processes.length]!,
      recordBytes: {
        small: random.integer(24, 600),
        page: random.integer(4000, 5000),
        large: random.integer(30_000, 90_000),
        huge: random.integer(200_000, 1_000_000),
      }[size],
      published: published && (size === 'small' || size === 'page'),
    }
  })
  const counters = processes.map((process) => ({ key: `counter/${client}/${lane}/${process.id}`, process }))
  return { registers, counters }
}

/** What a client is started with, as JSON. */
export interface ClientTask {
  readonly seed: string
  readonly client: number
  /** How many of its predecessors were killed. */
  readonly incarnation: number
  readonly clients: number
  readonly runtimeDir: string
  readonly folder: string
  readonly transports: readonly ('shm' | 'tcp' | 'verbs')[]
  /** What an answer may be late, and an unknown operation take effect after its deadline. */
  readonly allowanceMs: number
}

/** What an agent is started with, as JSON. */
export interface AgentTask {
  readonly runtimeDir: string
  /** With the native functions. */
  readonly library: string
  readonly hotMs: number
  readonly checkViews: boolean
}

export type FromAgent = { readonly type: 'ready' } | { readonly type: 'failed'; readonly text: string }

/** From the driver. `pause`: finish what is under way; `verify`: nothing is under way anywhere. */
export type ToClient = { readonly type: 'pause' } | { readonly type: 'verify' } | { readonly type: 'resume' }

export type FromClient =
  | { readonly type: 'paused' | 'verified' }
  | { readonly type: 'violation'; readonly check: string; readonly text: string }
