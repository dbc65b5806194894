/** What a call from function to function in one process costs, measured inside the calling one. */
import { apps, pinServer, quietMsOf, untilWorkers, type BenchCluster } from '../bench_cluster.js'
import type { Process } from '../../client/process.js'
import { floorsOfNested } from '../floors.js'
import type { NestedRequest } from '../functions.js'
import { idleLabels, type IdleLoad } from '../idle_load.js'
import { unpackBatch } from '../packed_batch.js'
import type { Pinning } from '../pinning.js'
import type { Plan, PlannedSubject } from '../plan.js'
import { perRound, type Repetitions } from '../repetitions.js'
import type { Call, Kind, Labels, Mode } from '../result.js'
import { batchMs, sampler, warmUpOf } from '../sampler.js'

export interface NestedOptions extends Repetitions {
  readonly kinds: readonly Kind[]
  readonly sizes: readonly number[]
  readonly pinning: Pinning | undefined
}

/** A way to call, and the function that measures it. */
interface Caller {
  readonly kind: Kind
  readonly call: Call
  readonly client: string
  readonly function: string
  readonly request: (bytes: number, count: number) => unknown
}

const callers: readonly Caller[] = [
  ...(['sync', 'async'] as const).map((call): Caller => ({
    ...{ kind: 'ts', call, client: call === 'sync' ? 'ctx.invokeSync' : 'await ctx.invoke', function: 'callNull' },
    request: (bytes, count): NestedRequest => ({ call, bytes, count }),
  })),
  {
    ...{ kind: 'native', call: 'sync', client: 'praas_invoke', function: 'measure_null' },
    request: (bytes, count) =>
      new Uint8Array(BigUint64Array.of(BigInt(bytes), BigInt(warmUpOf(bytes)(count)), BigInt(count)).buffer),
  },
]

export async function nestedPlans(
  bench: BenchCluster,
  mode: Mode,
  idle: IdleLoad,
  options: NestedOptions,
): Promise<Plan[]> {
  const { kinds, sizes, rounds, pinning } = options
  // Caller and called are to be the only ones that poll: not the client, and not the host, which would for TCP.
  const client = await bench.connect('shm', { blocking: true })
  const processes = new Map<Kind, Process>()
  for (const kind of kinds) {
    // Two workers: one calls, the other is called.
    const served = await client.process(`nested-${kind}`, { app: apps[kind], workers: 2 })
    await untilWorkers(served, kind === 'ts' ? 'node' : 'native', 2)
    await pinServer(served, pinning, { spread: true })
    processes.set(kind, served)
  }
  const subjectsOf = (bytes: number): PlannedSubject[] =>
    callers.flatMap((caller) => {
      const served = processes.get(caller.kind)
      return served ? [subjectOf(served, caller, bytes, mode, idle)] : []
    })
  return sizes.map((bytes) => ({
    subjects: subjectsOf(bytes),
    floors: floorsOfNested(mode, bytes),
    ...{ bytes, perRound: perRound(options, bytes), rounds, pinning },
  }))
}

function subjectOf(
  served: Process,
  { kind, call, client, function: name, request }: Caller,
  bytes: number,
  mode: Mode,
  idle: IdleLoad,
): PlannedSubject {
  const labels: Labels = {
    ...{ suite: 'invoke', transport: null, path: 'host', mode, kind, function: 'null', call, client },
    ...{ bytes, concurrency: 1, ...idleLabels(idle) },
  }
  const open = async (): ReturnType<PlannedSubject['open']> =>
    sampler({ quietMs: quietMsOf(mode) }, async (count) =>
      unpackBatch(await served.invoke(name, request(bytes, count), { timeoutMs: batchMs })),
    )
  return { labels, open }
}
