/**
 * How long it takes from nothing to the first result of a leased worker, phase by phase: for one whose OS process has to
 * be started, and for one that is there from an earlier lease.
 */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import type { LeasePhases } from '../../client/lease_report.js'
import type { Process } from '../../client/process.js'
import { apps, BenchCluster } from '../bench_cluster.js'
import { childEnvironment } from '../environment.js'
import { benchProgram } from '../programs.js'
import type { Progress } from '../progress.js'
import { Recorder } from '../recorder.js'
import type { Repetitions } from '../repetitions.js'
import type { Kind, Labels, Result, Transport } from '../result.js'
import { compared, floorOf } from '../runner.js'
import { batchOf } from '../sampler.js'
import { startingNode } from '../start_node.js'

export interface LeaseStartOptions extends Repetitions {
  readonly kinds: readonly Kind[]
  readonly transports: readonly Transport[]
}

/** In the order in which they come; `all` is their sum. */
const phases = ['connect', 'allocate', 'spawn', 'code', 'connect back', 'first call', 'all'] as const
type Phase = (typeof phases)[number]
/** Those that a kept worker does not have. */
const startPhases: ReadonlySet<Phase> = new Set(['spawn', 'code'])
/** Nanoseconds of each. */
type Start = Readonly<Record<Phase, number>>

const clients = ['native', 'await invoke'] as const
type StartClient = (typeof clients)[number]
/** The first lease of a process, and the second, whose worker the first has left. */
const workers = ['new worker', 'kept worker'] as const
const bytes = 64

interface Way {
  readonly kind: Kind
  readonly transport: Transport
  readonly client: StartClient
}

export function leaseStartSteps({ kinds, transports, samples }: LeaseStartOptions): number {
  return samples * (kinds.length * transports.length * clients.length + 1)
}

export async function leaseStarts(options: LeaseStartOptions, progress: Progress): Promise<Result[]> {
  const { kinds, transports, samples } = options
  await using bench = await BenchCluster.start('warm')
  for (const kind of kinds) await bench.deploy(kind)
  await using node = startingNode()
  const nodes = new Recorder()
  const ways = kinds.flatMap((kind) =>
    transports.flatMap((transport) => clients.map((client): Way => ({ kind, transport, client }))),
  )
  const recorded = ways.map((way) => ({ way, recorders: workers.map(() => phases.map(() => new Recorder())) }))
  for (let sample = 0; sample < samples; sample++) {
    for (const { way, recorders } of recorded) {
      const starts = await startsOf(bench, way)
      for (const [lease, start] of starts.entries()) {
        for (const [index, phase] of phases.entries()) {
          recorders[lease]?.[index]?.add(batchOf(Float64Array.of(start[phase])))
        }
      }
      progress.step(`${way.transport} ${way.kind} lease, ${way.client}`)
    }
    nodes.add(await node.run(1))
    progress.step('node -e 0')
  }
  const floor = floorOf([{ name: 'node -e 0', summary: nodes.summary() }])
  return recorded.flatMap(({ way, recorders }) =>
    recorders.flatMap((ofPhases, lease) =>
      ofPhases.flatMap((recorder, index) => {
        const phase = phases[index] ?? 'all'
        if (lease > 0 && startPhases.has(phase)) return []
        const labels = labelsOf(way, `${workers[lease] ?? ''}: ${phase}`)
        return compared(labels, recorder.summary(), phase === 'all' ? floor : undefined)
      }),
    ),
  )
}

function labelsOf({ kind, transport, client }: Way, what: string): Labels {
  return {
    ...({ suite: 'cold', transport, path: 'lease', mode: null, kind, function: what } as const),
    ...{ call: client === 'native' ? 'sync' : 'async', client, bytes, concurrency: 1 },
  }
}

let created = 0

/** Two leases of a new process, one after the other. */
async function startsOf(bench: BenchCluster, { kind, transport, client }: Way): Promise<Start[]> {
  const id = `lease-${++created}`
  const served = await bench.cluster.process(id, { app: apps[kind], memory: '64MiB', pool: '64MiB' })
  try {
    if (client === 'native') return await nativeStarts(bench, id, transport)
    return [await startHere(bench, id, transport), await startHere(bench, id, transport)]
  } finally {
    await served.stop()
  }
}

interface NativePhases {
  readonly connectNs: number
  readonly takeNs: number
  readonly taken: Omit<LeasePhases, 'connectNs'>
  readonly connectBackNs: number
  readonly firstCallNs: number
}

async function nativeStarts(bench: BenchCluster, id: string, transport: Transport): Promise<Start[]> {
  const { port, token } = await bench.endpoint(id)
  const args = [
    ...['--port', String(port), '--process', id, '--transport', transport, '--function', 'null'],
    ...['--bytes', String(bytes), '--lease', '0', '--lease-starts', String(workers.length)],
  ]
  const env = childEnvironment({ PRAAS_BENCH_TOKEN: token })
  const { stdout } = await promisify(execFile)(benchProgram('praas-bench-client'), args, { env })
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => startOf(JSON.parse(line) as NativePhases))
}

/** From this OS process, as an application would. */
async function startHere(bench: BenchCluster, id: string, transport: Transport): Promise<Start> {
  const began = performance.now()
  const client = await bench.connect(transport)
  try {
    const served: Process = await client.process(id)
    await served.connect()
    const connected = performance.now()
    await using lease = await served.lease({ transport, hotMs: 0 })
    const taken = performance.now()
    await lease.invoke('null', new Uint8Array(bytes))
    const called = performance.now()
    const { connectNs: connectBackNs } = lease.phases
    return startOf({
      ...{ connectNs: (connected - began) * 1e6, takeNs: (taken - connected) * 1e6 - connectBackNs },
      ...{ taken: lease.phases, connectBackNs, firstCallNs: (called - taken) * 1e6 },
    })
  } finally {
    await client.close()
  }
}

/** What asking takes, and waiting for room, is the part of taking in which no worker is started. */
function startOf({ connectNs, takeNs, taken, connectBackNs, firstCallNs }: NativePhases): Start {
  const { spawnNs, codeNs } = taken
  return {
    ...{ connect: connectNs, allocate: Math.max(0, takeNs - spawnNs - codeNs), spawn: spawnNs, code: codeNs },
    ...{ 'connect back': connectBackNs, 'first call': firstCallNs },
    all: connectNs + takeNs + connectBackNs + firstCallNs,
  }
}
