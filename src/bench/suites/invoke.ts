/** What one call costs, by transport, mode, kind of function, client and size. */
import { BenchCluster } from '../bench_cluster.js'
import { floorsOfCall } from '../floors.js'
import { addIdleProcesses, type IdleLoad } from '../idle_load.js'
import type { Pinning } from '../pinning.js'
import { runPlans, stepsOf, type Plan } from '../plan.js'
import type { Progress } from '../progress.js'
import { perRound, type Repetitions } from '../repetitions.js'
import type { FunctionName, Kind, Measured, Mode, Result, Transport } from '../result.js'
import { Served } from '../served.js'
import { movedBytes, type Client } from '../subjects.js'
import { nestedPlans } from './nested.js'

export interface InvokeOptions extends Repetitions {
  readonly transports: readonly Transport[]
  readonly modes: readonly Mode[]
  readonly kinds: readonly Kind[]
  readonly clients: readonly Client[]
  readonly functions: readonly FunctionName[]
  readonly sizes: readonly number[]
  readonly idle: IdleLoad
  /** Also calls from function to function in one process. */
  readonly nested: boolean
  readonly pinning: Pinning | undefined
}

export async function invokeSuite(options: InvokeOptions, progress: Progress): Promise<Measured> {
  const results: Result[] = []
  for (const mode of options.modes) {
    await using bench = await BenchCluster.start(mode)
    // Idle processes run TypeScript.
    if (options.idle.processes > 0 || options.kinds.includes('ts')) await bench.deploy('ts')
    if (options.kinds.includes('native')) await bench.deploy('native')
    await addIdleProcesses(bench, options.idle.processes)
    const plans: Plan[] = []
    for (const transport of options.transports) plans.push(...(await callPlans(bench, transport, mode, options)))
    if (options.nested) plans.push(...(await nestedPlans(bench, mode, options)))
    progress.expect(plans.reduce((steps, plan) => steps + stepsOf(plan), 0))
    results.push(...(await runPlans(plans, progress)))
  }
  return { results, quantities: [] }
}

async function callPlans(
  bench: BenchCluster,
  transport: Transport,
  mode: Mode,
  options: InvokeOptions,
): Promise<Plan[]> {
  const { functions, sizes, kinds, clients, idle, pinning, rounds } = options
  const served = await Served.open(bench, { transport, mode, kinds, idle, pinning })
  return functions.flatMap((name) =>
    sizes.map((bytes) => ({
      subjects: served.subjects(clients, { suite: 'invoke', function: name, bytes }),
      floors: floorsOfCall({ transport, mode, function: name, bytes }),
      ...{ bytes, perRound: perRound(options, movedBytes(transport, name, bytes)), rounds, pinning },
    })),
  )
}
