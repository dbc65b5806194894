/** How many calls per second go through one connection with many in flight. */
import { BenchCluster } from '../bench_cluster.js'
import { floorsOfThroughput } from '../floors.js'
import { noLoad } from '../idle_load.js'
import type { Pinning } from '../pinning.js'
import { runPlans, stepsOf, type Plan } from '../plan.js'
import type { Progress } from '../progress.js'
import { perRound, type Repetitions } from '../repetitions.js'
import type { Kind, Measured, Mode, Path, Result, Transport } from '../result.js'
import { Served } from '../served.js'
import { movedBytes, type Client } from '../subjects.js'

export interface ThroughputOptions extends Repetitions {
  readonly transports: readonly Transport[]
  readonly paths: readonly Path[]
  readonly modes: readonly Mode[]
  readonly kinds: readonly Kind[]
  readonly clients: readonly Client[]
  readonly sizes: readonly number[]
  /** Calls in flight. */
  readonly concurrency: readonly number[]
  readonly pinning: Pinning | undefined
}

export async function throughputSuite(options: ThroughputOptions, progress: Progress): Promise<Measured> {
  const results: Result[] = []
  for (const mode of options.modes) {
    await using bench = await BenchCluster.start(mode)
    for (const kind of options.kinds) await bench.deploy(kind)
    for (const transport of options.transports) {
      using served = await Served.open(bench, { ...options, transport, mode, idle: noLoad })
      const plans = options.paths.flatMap((path) => plansOf(served, transport, path, options))
      progress.expect(plans.reduce((steps, plan) => steps + stepsOf(plan), 0))
      results.push(...(await runPlans(plans, progress)))
    }
  }
  return { results, quantities: [] }
}

function plansOf(served: Served, transport: Transport, path: Path, options: ThroughputOptions): Plan[] {
  const { sizes, concurrency, clients, pinning, rounds } = options
  return sizes.flatMap((bytes) =>
    concurrency.map((inFlight) => ({
      subjects: served.subjects(clients, { suite: 'throughput', path, function: 'null', bytes, inFlight }),
      floors: floorsOfThroughput(transport, bytes, inFlight),
      ...{
        bytes,
        perRound: perRound(options, movedBytes(transport, 'null', bytes)),
        rounds,
        pinning,
        compare: 'rates' as const,
      },
    })),
  )
}
