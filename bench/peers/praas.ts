/** praas, as its peers are measured. */
import { existsSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Cluster, connect } from 'praas'
import type { Endpoint } from '../../src/control.js'
import { openExternal } from './external.js'
import { pinServer } from './pinning.js'
import { sampleAsync, sampleSync, type OpenPeer, type Peer, type Sampler, type SamplerOptions } from './sampler.js'
import { removeFolder, temporaryFolder } from './temporary.js'

// As seen from where this is compiled to, build/bench/peers.
const root = new URL('../../../', import.meta.url)
const functions = new URL('bench/peers/functions.ts', root)
const nativeClient = fileURLToPath(new URL('build/Release/praas-bench-client', root))
const nativeFunctions = fileURLToPath(new URL('build/Release/praas-bench-functions.so', root))

/** How long a hot worker polls after a call, milliseconds; long against what lies between two calls of a batch. */
const hotMs = 50

interface Mode {
  readonly transport: 'tcp' | 'shm'
  readonly mode: 'warm' | 'hot'
}

interface ServedProcess {
  readonly id: string
  readonly cluster: Cluster
  readonly runtimeDir: string
}

interface Shared {
  readonly served: ServedProcess
  users: number
}

/** By mode and kind of function. Subjects that differ in their clients only call one process. */
const running = new Map<string, Promise<Shared>>()

async function start(
  id: string,
  hotMs: number,
  code: { readonly app: URL } | { readonly native: string },
): Promise<Shared> {
  const runtimeDir = temporaryFolder()
  const cluster = await Cluster.local({ runtimeDir, hotMs, checkViews: false })
  await cluster.deploy({ ...code, name: 'bench' })
  const { pid, workers } = await (await cluster.process(id, { app: 'bench' })).describe()
  for (const server of [pid, ...workers.map((worker) => worker.pid)]) pinServer(server)
  return { served: { id, cluster, runtimeDir }, users: 0 }
}

/** Nothing is left of a cluster when its last user has closed it. */
async function openSubject(
  mode: Mode['mode'],
  kind: 'ts' | 'native',
  sampler: (served: ServedProcess, options: SamplerOptions) => Promise<Sampler>,
): Promise<OpenPeer> {
  const keepMs = mode === 'hot' ? hotMs : 0
  const id = `peers-${mode}-${kind}-${process.pid}`
  const starting =
    running.get(id) ?? start(id, keepMs, kind === 'ts' ? { app: functions } : { native: nativeFunctions })
  running.set(id, starting)
  const shared = await starting
  shared.users++
  return {
    sampler: async (options) => quietAfter(keepMs, await sampler(shared.served, options)),
    close: async () => {
      if (--shared.users > 0) return
      running.delete(id)
      await shared.served.cluster.close()
      removeFolder(shared.served.runtimeDir)
    },
  }
}

/** A sampler that hands over only once workers that poll have gone to sleep. */
function quietAfter(keepMs: number, sampler: Sampler): Sampler {
  if (keepMs === 0) return sampler
  return {
    sample: async (count) => {
      const batch = await sampler.sample(count)
      await pause(keepMs + 10)
      return batch
    },
    close: () => sampler.close(),
  }
}

/** Where a client without Node connects to. */
async function endpointOf({ cluster, id, runtimeDir }: ServedProcess): Promise<Endpoint> {
  const { ControlClient } = (await internal(
    'client/control_client.js',
  )) as typeof import('../../src/client/control_client.js')
  const { RuntimeDirectory } = (await internal(
    'agent/runtime_directory.js',
  )) as typeof import('../../src/agent/runtime_directory.js')
  const control = new ControlClient(cluster.url, RuntimeDirectory.find(runtimeDir)?.token() ?? '')
  try {
    return (await control.find(id, { timeoutMs: 10_000 })).endpoint
  } finally {
    await control.close()
  }
}

/** A module of the package that its users do not see. */
function internal(path: string): Promise<unknown> {
  return import(new URL(`dist/${path}`, root).href)
}

interface TypeScriptMode extends Mode {
  readonly client: 'invokeSync' | 'await invoke'
  /** The input lies in memory of `allocate()`. */
  readonly allocated?: boolean
}

/** A TypeScript function called from TypeScript. A hot client polls while it waits; a warm one blocks at once. */
function typeScript({ transport, mode, client, allocated = false }: TypeScriptMode): Peer {
  const call = client === 'invokeSync' ? 'sync' : 'await'
  const name = `${transport}-${mode}-${call}${allocated ? '-allocated' : ''}`
  const sampler = async (served: ServedProcess, options: SamplerOptions): Promise<Sampler> => {
    const { cluster, runtimeDir, id } = served
    const connection = await connect(cluster.url, { transport, runtimeDir, hotMs: mode === 'hot' ? -1 : 0 })
    const remote = await connection.process(id)
    const input = allocated ? remote.allocate(options.bytes) : new Uint8Array(options.bytes)
    const close = (): Promise<void> => connection.close()
    return client === 'invokeSync'
      ? sampleSync(options.bytes, () => remote.invokeSync('same', input), close)
      : sampleAsync(options, () => remote.invoke('same', input), close)
  }
  return {
    name,
    title: `praas ${transport} ${mode}, ${client}${allocated ? ', allocate()' : ''}`,
    client,
    concurrent: client === 'await invoke',
    missing: async () => undefined,
    open: () => openSubject(mode, 'ts', sampler),
  }
}

/** A native function called from a native client; what is above 4 KiB lies in memory that both see, as with `allocate()`. */
function native({ transport, mode }: Mode, name: 'null' | 'touch'): Peer {
  const peerName = `${transport}-${mode}-native${name === 'touch' ? '-touch' : ''}`
  const sampler = async (served: ServedProcess, { bytes }: SamplerOptions): Promise<Sampler> => {
    const { port, token } = await endpointOf(served)
    const args = [
      ...['--port', String(port), '--process', served.id, '--transport', transport, '--function', name],
      ...['--bytes', String(bytes), ...(transport === 'shm' && bytes > 4_096 ? ['--allocate'] : [])],
      ...(mode === 'hot' ? ['--hot-us', '1000000'] : []),
      ...(name === 'touch' ? ['--touch'] : []),
    ]
    return openExternal(nativeClient, args, { ...process.env, PRAAS_BENCH_TOKEN: token })
  }
  return {
    name: peerName,
    title: `praas ${transport} ${mode}, native${name === 'touch' ? ', touch' : ''}`,
    function: name,
    client: 'native',
    concurrent: false,
    missing: async () => {
      const missing = [nativeClient, nativeFunctions].find((path) => !existsSync(path))
      return missing === undefined ? undefined : `no ${missing}`
    },
    open: () => openSubject(mode, 'native', sampler),
  }
}

export const subjects: readonly Peer[] = [
  typeScript({ transport: 'tcp', mode: 'warm', client: 'invokeSync' }),
  typeScript({ transport: 'tcp', mode: 'warm', client: 'await invoke' }),
  typeScript({ transport: 'tcp', mode: 'hot', client: 'invokeSync' }),
  typeScript({ transport: 'tcp', mode: 'hot', client: 'await invoke' }),
  typeScript({ transport: 'shm', mode: 'hot', client: 'invokeSync' }),
  typeScript({ transport: 'shm', mode: 'hot', client: 'await invoke' }),
  typeScript({ transport: 'shm', mode: 'hot', client: 'invokeSync', allocated: true }),
  native({ transport: 'shm', mode: 'hot' }, 'null'),
  native({ transport: 'shm', mode: 'hot' }, 'touch'),
]
