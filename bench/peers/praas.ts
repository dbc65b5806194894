/** praas, as its peers are measured: with the processes, functions and clients of the suite (src/bench). */
import { BenchCluster } from '../../src/bench/bench_cluster.js'
import { floorsOfCall, floorsOfThroughput } from '../../src/bench/floors.js'
import { noLoad } from '../../src/bench/idle_load.js'
import type { FunctionName, Kind, Mode, Transport } from '../../src/bench/result.js'
import { Served } from '../../src/bench/served.js'
import { callOf, type Client } from '../../src/bench/subjects.js'
import { chosenCores } from './cores.js'
import type { OpenPeer, Peer, PeerLabels } from './peer.js'

interface Shared {
  readonly bench: BenchCluster
  readonly deployed: Set<Kind>
  users: number
}

/** By mode. Subjects that differ in their clients only call one process. */
const running = new Map<Mode, Promise<Shared>>()

async function start(mode: Mode): Promise<Shared> {
  return { bench: await BenchCluster.start(mode), deployed: new Set(), users: 0 }
}

/** Nothing is left of a cluster when its last user has released it. */
async function release(mode: Mode, shared: Shared): Promise<void> {
  if (--shared.users > 0) return
  running.delete(mode)
  await shared.bench[Symbol.asyncDispose]()
}

interface Way {
  readonly transport: Exclude<Transport, 'verbs'>
  readonly mode: Mode
  readonly kind: Kind
  readonly client: Client
  readonly function: FunctionName
  /** See `CallSpec` of the suite. */
  readonly inPlace?: boolean
}

async function open({ transport, mode, kind, client, function: name, inPlace }: Way): Promise<OpenPeer> {
  const starting = running.get(mode) ?? start(mode)
  running.set(mode, starting)
  const shared = await starting
  shared.users++
  try {
    if (!shared.deployed.has(kind)) await shared.bench.deploy(kind)
    shared.deployed.add(kind)
    const options = { transport, mode, kinds: [kind], idle: noLoad, pinning: chosenCores() }
    const served = await Served.open(shared.bench, options)
    return {
      sampler: ({ bytes, inFlight }) => {
        const call = { suite: 'invoke', path: 'host', function: name, bytes, inFlight } as const
        const [subject] = served.subjects([client], { ...call, ...(inPlace === undefined ? {} : { inPlace }) })
        if (!subject) throw new Error(`nothing calls ${name}`)
        return subject.open()
      },
      close: () => release(mode, shared),
    }
  } catch (error) {
    await release(mode, shared)
    throw error
  }
}

function subject(way: Way): Peer {
  const { transport, mode, kind, client, function: called, inPlace } = way
  const labels: PeerLabels = { transport, path: 'host', mode, kind, function: called, call: callOf(client), client }
  const short = { native: 'native', invokeSync: 'sync', 'await invoke': 'await', invokeMany: 'many' }[client]
  const details = [...(inPlace === true ? ['allocate()'] : []), ...(called === 'touch' ? ['touch'] : [])]
  const suffix = [...(inPlace === true ? ['allocated'] : []), ...(called === 'touch' ? ['touch'] : [])]
  return {
    name: [transport, mode, short, ...suffix].join('-'),
    title: [`praas ${transport} ${mode}`, client, ...details].join(', '),
    labels,
    concurrent: client === 'await invoke' && called === 'null',
    floors: ({ bytes, inFlight }) =>
      inFlight > 1
        ? floorsOfThroughput(transport, bytes, inFlight)
        : floorsOfCall({ path: 'host', transport, mode, function: called, bytes }),
    missing: async () => undefined,
    open: () => open(way),
  }
}

const callOfTypeScript = { kind: 'ts', function: 'null', inPlace: false } as const

export const subjects: readonly Peer[] = [
  subject({ ...callOfTypeScript, transport: 'tcp', mode: 'warm', client: 'invokeSync' }),
  subject({ ...callOfTypeScript, transport: 'tcp', mode: 'warm', client: 'await invoke' }),
  subject({ ...callOfTypeScript, transport: 'tcp', mode: 'hot', client: 'invokeSync' }),
  subject({ ...callOfTypeScript, transport: 'tcp', mode: 'hot', client: 'await invoke' }),
  subject({ ...callOfTypeScript, transport: 'shm', mode: 'hot', client: 'invokeSync' }),
  subject({ ...callOfTypeScript, transport: 'shm', mode: 'hot', client: 'await invoke' }),
  subject({ ...callOfTypeScript, transport: 'shm', mode: 'hot', client: 'invokeSync', inPlace: true }),
  subject({ transport: 'shm', mode: 'hot', kind: 'native', client: 'native', function: 'null' }),
  subject({ transport: 'tcp', mode: 'warm', kind: 'ts', client: 'await invoke', function: 'touch' }),
  subject({ transport: 'shm', mode: 'hot', kind: 'ts', client: 'await invoke', function: 'touch' }),
  subject({ transport: 'shm', mode: 'hot', kind: 'native', client: 'native', function: 'touch' }),
]
