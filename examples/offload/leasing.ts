/** What both computations lease workers with. */
import type { Lease, Process } from 'praas'

export interface Leasing {
  /** The process that workers are leased of. */
  readonly target: Process
  readonly runtime: 'native' | 'node'
  readonly workers: number
  /** How long they poll after a call before they sleep, milliseconds; -1 always. */
  readonly hotMs: number
  /** Kills one of them in the middle. */
  readonly kill: boolean
}

/** Long, because the program renews nothing while it computes for seconds itself. */
const ttlMs = 60_000

export function lease({ target, runtime, hotMs }: Leasing, workers: number): Promise<Lease> {
  return target.lease({ workers, runtime, hotMs, ttlMs, name: 'offload' })
}

/** What the functions are called: those in C++ have names of their own. */
export function functionName(name: 'stress' | 'sweep', { runtime }: Leasing): string {
  return runtime === 'node' ? name : { stress: 'nativeStress', sweep: 'nativeSweep' }[name]
}

export function languageOf({ runtime }: Leasing): string {
  return runtime === 'node' ? 'TypeScript' : 'C++'
}

/** @returns who was killed */
export function killOne(lease: Lease): { worker: number; pid: number } {
  const worker = lease.workers.length - 1
  const { pid } = lease.workers[worker]!
  process.kill(pid, 'SIGKILL')
  return { worker, pid }
}
