/** What one call costs, by transport, mode, kind of function, client and size. */
import { BenchCluster } from '../bench_cluster.js'
import { floorsOfCall } from '../floors.js'
import { addIdleProcesses, type IdleLoad } from '../idle_load.js'
import type { Pinning } from '../pinning.js'
import { runPlans, stepsOf, type Plan, type PlannedSubject } from '../plan.js'
import type { Progress } from '../progress.js'
import { perRound, type Repetitions } from '../repetitions.js'
import { withoutPerftest } from '../perftest.js'
import { besideVerbs, besideWarmWindow } from '../references.js'
import type { FunctionName, Kind, Measured, Mode, Path, Result, Transport } from '../result.js'
import { Served } from '../served.js'
import { movedBytes, type Client } from '../subjects.js'
import { nestedPlans } from './nested.js'

export interface InvokeOptions extends Repetitions {
  readonly transports: readonly Transport[]
  readonly paths: readonly Path[]
  readonly modes: readonly Mode[]
  readonly kinds: readonly Kind[]
  readonly clients: readonly Client[]
  readonly functions: readonly FunctionName[]
  readonly sizes: readonly number[]
  /** What is there beside, one after the other. */
  readonly loads: readonly IdleLoad[]
  /** Also calls from function to function in one process. */
  readonly nested: boolean
  readonly pinning: Pinning | undefined
}

export async function invokeSuite(options: InvokeOptions, progress: Progress): Promise<Measured> {
  const results: Result[] = []
  for (const mode of options.modes) {
    for (const idle of options.loads) results.push(...(await measureLoad(mode, idle, options, progress)))
  }
  const missing = options.transports.includes('verbs') ? withoutPerftest() : undefined
  return { results, quantities: [], ...(missing === undefined ? {} : { notes: [missing] }) }
}

async function measureLoad(mode: Mode, idle: IdleLoad, options: InvokeOptions, progress: Progress): Promise<Result[]> {
  const { transports, paths, kinds, nested } = options
  await using bench = await BenchCluster.start(mode)
  // Idle processes run TypeScript.
  if (idle.processes > 0 || kinds.includes('ts')) await bench.deploy('ts', idle.functions)
  if (kinds.includes('native')) await bench.deploy('native', idle.functions)
  await addIdleProcesses(bench, idle.processes)
  const results: Result[] = []
  const run = async (plans: readonly Plan[]): Promise<void> => {
    progress.expect(plans.reduce((steps, plan) => steps + stepsOf(plan), 0))
    results.push(...(await runPlans(plans, progress)))
  }
  for (const transport of transports) {
    using served = await Served.open(bench, { ...options, transport, mode, idle })
    await run(paths.flatMap((path) => callPlans(served, { transport, path, mode }, options)))
  }
  if (nested) await run(await nestedPlans(bench, mode, idle, options))
  return results
}

interface Way {
  readonly transport: Transport
  readonly path: Path
  readonly mode: Mode
}

function callPlans(served: Served, way: Way, options: InvokeOptions): Plan[] {
  const { transport, path } = way
  const { functions, sizes, clients, pinning, rounds } = options
  return functions.flatMap((name) =>
    sizes.map((bytes) => ({
      subjects: [
        ...served.subjects(clients, { suite: 'invoke', path, function: name, bytes }),
        ...(name === 'null' ? besideOf(way, bytes, pinning) : []),
      ],
      floors: floorsOfCall({ ...way, function: name, bytes }),
      ...{ bytes, perRound: perRound(options, movedBytes(transport, name, bytes)), rounds, pinning },
    })),
  )
}

function besideOf({ transport, path, mode }: Way, bytes: number, pinning: Pinning | undefined): PlannedSubject[] {
  if (transport === 'verbs') return besideVerbs(mode, bytes, pinning)
  return transport === 'shm' && path === 'lease' && mode === 'warm' ? [besideWarmWindow(bytes, pinning)] : []
}
