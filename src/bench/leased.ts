/** Leases that benchmarks take. */
import type { Lease } from '../client/lease.js'
import type { Process } from '../client/process.js'
import { pinProcess, type Pinning } from './pinning.js'
import { hotMsOf } from './bench_cluster.js'
import type { Mode, Transport } from './result.js'

/** Longer than any suite runs. */
const ttlMs = 24 * 3_600_000

export interface LeaseSpec {
  readonly transport: Transport
  readonly mode: Mode
  readonly pinning: Pinning | undefined
}

/** One worker, on the core of workers. */
export async function leaseWorker(served: Process, { transport, mode, pinning }: LeaseSpec): Promise<Lease> {
  const lease = await served.lease({ transport, hotMs: hotMsOf(mode), ttlMs, renew: false })
  if (pinning) for (const { pid } of lease.workers) await pinProcess(pid, pinning.worker)
  return lease
}
