/** Whether leases end when they should, and leave nothing. */
import { BenchCluster } from '../bench_cluster.js'
import type { Progress } from '../progress.js'
import type { Check, Kind, Measured, Quantity, Transport } from '../result.js'
import { leaseEnds } from './lease_end.js'
import { leaseRemains } from './lease_remains.js'

export interface LeaseOptions {
  readonly kinds: readonly Kind[]
  readonly transports: readonly Transport[]
  /** Leases that expire while their worker runs a function that never returns. */
  readonly samples: number
  /** After how long they do, milliseconds. */
  readonly ttlMs: number
  /** Leases that are taken, used, and given back or left to expire, one after the other; 0: none. */
  readonly leases: number
}

export interface LeaseWay {
  readonly kind: Kind
  readonly transport: Transport
}

/** What is found of one kind of worker over one transport. */
export interface LeaseFindings {
  readonly quantities: readonly Quantity[]
  readonly checks: readonly Check[]
}

export async function leaseSuite(options: LeaseOptions, progress: Progress): Promise<Measured> {
  const { kinds, transports, samples, leases } = options
  const ways = kinds.flatMap((kind) => transports.map((transport): LeaseWay => ({ kind, transport })))
  progress.expect(ways.length * (samples + leases))
  await using bench = await BenchCluster.start('warm')
  for (const kind of kinds) await bench.deploy(`${kind}-endless`)
  const quantities: Quantity[] = []
  const checks: Check[] = []
  for (const way of ways) {
    const findings = [await leaseEnds(bench, way, options, progress)]
    if (leases > 0) findings.push(await leaseRemains(bench, way, options, progress))
    for (const found of findings) {
      quantities.push(...found.quantities)
      checks.push(...found.checks)
    }
  }
  return { results: [], quantities, checks }
}
