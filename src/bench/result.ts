/** What the suite gives: documented in docs/benchmarks.md, read by scripts. */
import type { Machine, Versions } from './machine.js'
import type { Summary } from './recorder.js'

export type SuiteName = 'invoke' | 'state' | 'cold' | 'throughput' | 'lease'
export type Transport = 'shm' | 'tcp' | 'verbs'
/** How calls get to workers: passed on by the host, or directly to those of a lease. */
export type Path = 'host' | 'lease'
export type Mode = 'hot' | 'warm'
export type Kind = 'ts' | 'native'
export type Call = 'sync' | 'async'
export type FunctionName = 'null' | 'touch' | 'discard'

/** What was measured. `null` where a column says nothing about it. */
export interface Labels {
  readonly suite: SuiteName
  readonly transport: Transport | null
  readonly path: Path | null
  readonly mode: Mode | null
  readonly kind: Kind | null
  /** `null`, `touch`, `discard`, or the operation. */
  readonly function: string
  readonly call: Call | null
  /**
   * Who called: `native`, `invokeSync`, `await invoke`, `invokeMany`, how it was called inside a function, or a program
   * that has nothing to do with praas.
   */
  readonly client: string
  /** Of the input, and as many of the result, but for `discard`, which has none. */
  readonly bytes: number
  /** Calls in flight. */
  readonly concurrency: number
  /** Other connections to the process, when there were any. */
  readonly idleConnections?: number
  /** Other processes of the cluster, when there were any. */
  readonly idleProcesses?: number
  /** Other functions of the process, when there were any. */
  readonly idleFunctions?: number
  /** Keys in the state. */
  readonly keys?: number
}

/** What was found, beside a floor. */
export interface Measurement extends Summary {
  /** What the same machine can do without this package, measured in turns with it. */
  readonly floor: string | null
  readonly floorP50Ns: number | null
  readonly floorOpsPerSec: number | null
  /** What is left of the median without that of the floor. */
  readonly minusFloorNs: number | null
  /** Subject/floor for times, floor/subject for rates: smaller is better. */
  readonly ratio: number | null
}

export type Result = Labels & Measurement

/** A figure that is no time of an operation. */
export interface Quantity {
  readonly suite: SuiteName
  readonly name: string
  readonly value: number
  readonly unit: string
}

/** A figure with a limit. */
export interface Check extends Quantity {
  /** It is met by values up to here. */
  readonly most: number
}

export function isMet({ value, most }: Check): boolean {
  return value <= most
}

export interface Report {
  /** What it was asked for. */
  readonly command: string
  readonly machine: Machine
  readonly versions: Versions
  readonly results: readonly Result[]
  readonly quantities: readonly Quantity[]
  readonly checks?: readonly Check[]
  /** What was left out, and why. */
  readonly notes?: readonly string[]
}

/** What a suite measures. */
export type Measured = Pick<Report, 'results' | 'quantities' | 'checks' | 'notes'>
