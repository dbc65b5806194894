/** How long from nothing to the first result, and what it costs to have processes that do nothing. */
import type { Cluster } from '../../client/cluster.js'
import { apps, BenchCluster } from '../bench_cluster.js'
import { descendantsOf, untilStill } from '../os_usage.js'
import type { Progress } from '../progress.js'
import type { Kind, Labels, Measured, Path, Quantity, Result, Transport } from '../result.js'
import { batchesOf, measureGroup } from '../runner.js'
import { batchOf, sampler, type Sampler } from '../sampler.js'
import { leaseStarts, leaseStartSteps } from './lease_start.js'
import { nativeStarts } from './native_start.js'
import { startingNode } from '../start_node.js'
import { idleQuantities, manyWorkers } from './idle.js'

export interface ColdOptions {
  readonly kinds: readonly Kind[]
  /** `lease`: the first call of leased workers; `host`: everything else. */
  readonly paths: readonly Path[]
  /** To leased workers. */
  readonly transports: readonly Transport[]
  /** First results of each kind, with an empty pool and with a filled one. */
  readonly samples: number
  readonly rounds: number
  /** Numbers of idle processes whose memory and CPU time are measured, one after the other. */
  readonly processes: readonly number[]
  /** For which their CPU time is measured. */
  readonly seconds: number
  /** Native workers of one process; 0: none. */
  readonly workers: number
}

export async function coldSuite(options: ColdOptions, progress: Progress): Promise<Measured> {
  const { paths } = options
  if (paths.includes('lease')) progress.expect(leaseStartSteps(options))
  const leased = paths.includes('lease') ? await leaseStarts(options, progress) : []
  const { results, quantities } = paths.includes('host') ? await throughHost(options, progress) : nothing
  return { results: [...results, ...leased], quantities }
}

const nothing: Measured = { results: [], quantities: [] }

async function throughHost(options: ColdOptions, progress: Progress): Promise<Measured> {
  const { kinds, processes, workers, rounds } = options
  const native = kinds.includes('native')
  const extra = Number(native) + processes.length + Number(workers > 0)
  progress.expect(2 * batchesOf(kinds.length, 1, rounds) + extra)
  const results: Result[] = []
  for (const prewarm of [0, 1]) results.push(...(await measureStarts(prewarm, options, progress)))
  const quantities: Quantity[] = []
  if (native) {
    quantities.push(...(await nativeStarts(options.samples)))
    progress.step('native worker')
  }
  for (const count of processes) {
    quantities.push(...(await idleQuantities(count, options.seconds)))
    progress.step(`${count} idle processes`)
  }
  if (workers > 0) {
    quantities.push(...(await manyWorkers(workers)))
    progress.step(`${workers} native workers`)
  }
  return { results, quantities }
}

/** @param prewarm  process hosts, each with a worker started, that wait for a process */
async function measureStarts(prewarm: number, options: ColdOptions, progress: Progress): Promise<Result[]> {
  await using bench = await BenchCluster.start('warm', { prewarm })
  for (const kind of options.kinds) await bench.deploy(kind)
  const subjects = options.kinds.map((kind) => ({
    labels: labelsOf(kind, prewarm > 0),
    sampler: firstResults(bench.cluster, kind, prewarm > 0),
  }))
  const { samples, rounds } = options
  const group = {
    subjects,
    floor: [{ name: 'node -e 0', sampler: startingNode() }],
    ...{ perRound: Math.ceil(samples / rounds), rounds },
  }
  return await measureGroup(group, (what) => progress.step(what))
}

let created = 0

/** Creates a process and calls it once; ends it, and fills the pool again, when nobody measures. */
function firstResults(cluster: Cluster, kind: Kind, pooled: boolean): Sampler {
  const input = new Uint8Array(64)
  return sampler({}, async (count) => {
    const timesNs = new Float64Array(count)
    for (let index = 0; index < count; index++) {
      if (pooled) await untilStill(() => descendantsOf(process.pid).slice(1))
      const began = performance.now()
      const served = await cluster.process(`cold-${++created}`, { app: apps[kind], memory: '64MiB', pool: '64MiB' })
      await served.invoke('null', input)
      timesNs[index] = (performance.now() - began) * 1e6
      await served.stop()
    }
    return batchOf(timesNs)
  })
}

function labelsOf(kind: Kind, pooled: boolean): Labels {
  return {
    ...({ suite: 'cold', transport: 'shm', path: 'host', mode: null, kind, call: 'async' } as const),
    function: pooled ? 'create and call, from the pool' : 'create and call',
    ...{ client: 'await invoke', bytes: 64, concurrency: 1 },
  }
}
