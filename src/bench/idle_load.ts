/** What else a cluster has to hold while something is measured, to see that it costs nothing. */
import type { Process } from '../client/process.js'
import { apps, type BenchCluster } from './bench_cluster.js'
import type { Transport } from './result.js'

export interface IdleLoad {
  /** Other connections to the process that is measured. */
  readonly connections: number
  /** Other processes of the cluster. */
  readonly processes: number
}

/** Creates so many processes that nobody calls. */
export async function addIdleProcesses(bench: BenchCluster, count: number): Promise<Process[]> {
  const made: Process[] = []
  const small = { app: apps.ts, memory: '16MiB', pool: '16MiB' } as const
  // A few at a time: each starts two programs.
  for (let first = 0; first < count; first += 4) {
    const some = Array.from({ length: Math.min(4, count - first) }, (_, index) =>
      bench.cluster.process(`idle-${first + index}`, small),
    )
    made.push(...(await Promise.all(some)))
  }
  return made
}

/** Opens so many connections that carry no calls. */
export async function addIdleConnections(
  bench: BenchCluster,
  transport: Transport,
  id: string,
  count: number,
): Promise<void> {
  for (let index = 0; index < count; index++) {
    const client = await bench.connect(transport, { window: '4MiB' })
    await client.process(id, { create: false })
  }
}

/** As results name it. */
export function idleLabels({ connections, processes }: IdleLoad): { idleConnections?: number; idleProcesses?: number } {
  return {
    ...(connections > 0 ? { idleConnections: connections } : {}),
    ...(processes > 0 ? { idleProcesses: processes } : {}),
  }
}
