/** The processes whose functions are called, one per kind of function, over one transport. */
import type { Process } from '../client/process.js'
import type { Endpoint } from '../control.js'
import { apps, hotMsOf, pinServer, quietMsOf, type BenchCluster } from './bench_cluster.js'
import { IdleConnections, idleLabels, type IdleLoad } from './idle_load.js'
import { leaseWorker } from './leased.js'
import { pinProcess, type Pinning } from './pinning.js'
import type { PlannedSubject } from './plan.js'
import type { FunctionName, Kind, Labels, Mode, Path, SuiteName, Transport } from './result.js'
import { callOf, callSampler, nativeClientSampler, type Client } from './subjects.js'

export interface ServeOptions {
  readonly transport: Transport
  readonly mode: Mode
  readonly kinds: readonly Kind[]
  readonly idle: IdleLoad
  readonly pinning: Pinning | undefined
}

export interface CallOptions {
  readonly suite: SuiteName
  readonly path: Path
  readonly function: FunctionName
  readonly bytes: number
  /** Calls at a time. Default: 1. */
  readonly inFlight?: number
  /** See `CallSpec`. */
  readonly inPlace?: boolean
}

type Processes = ReadonlyMap<Kind, { readonly process: Process; readonly endpoint: Endpoint }>

export class Served implements Disposable {
  readonly #options: ServeOptions
  readonly #processes: Processes
  readonly #connections: readonly IdleConnections[]

  /** Creates the processes unless they are there, connects to them, and opens the idle connections. */
  static async open(bench: BenchCluster, options: ServeOptions): Promise<Served> {
    const { transport, kinds, idle, pinning } = options
    if (pinning) await pinProcess(process.pid, pinning.client)
    const client = await bench.connect(transport)
    const processes = new Map<Kind, { process: Process; endpoint: Endpoint }>()
    const connections: IdleConnections[] = []
    const served = new Served(options, processes, connections)
    try {
      for (const kind of kinds) {
        const process = await client.process(kind, { app: apps[kind] })
        await pinServer(process, pinning)
        const endpoint = await bench.endpoint(kind)
        connections.push(await IdleConnections.open(process, endpoint, transport, idle.connections))
        processes.set(kind, { process, endpoint })
      }
      return served
    } catch (error) {
      served[Symbol.dispose]()
      throw error
    }
  }

  private constructor(options: ServeOptions, processes: Processes, connections: readonly IdleConnections[]) {
    this.#options = options
    this.#processes = processes
    this.#connections = connections
  }

  /** Closes the idle connections; the processes end with the cluster. */
  [Symbol.dispose](): void {
    for (const connections of this.#connections) connections[Symbol.dispose]()
  }

  /** Calls of one function by each of the clients. */
  subjects(who: readonly Client[], call: CallOptions): PlannedSubject[] {
    return this.#options.kinds.flatMap((kind) => who.map((client) => this.#subject(kind, client, call)))
  }

  #subject(kind: Kind, client: Client, { suite, path, inFlight = 1, ...call }: CallOptions): PlannedSubject {
    const { function: name, bytes } = call
    const { transport, mode, idle, pinning } = this.#options
    const labels: Labels = {
      ...{ suite, transport, path, mode, kind, function: name, call: callOf(client), client },
      ...{ bytes, concurrency: inFlight, ...idleLabels(idle) },
    }
    const spec = { ...call, inFlight, quietMs: quietMsOf(mode) }
    const open = async (): ReturnType<PlannedSubject['open']> => {
      const served = this.#processes.get(kind)
      if (!served) throw new Error(`no process serves ${kind} functions`)
      if (client === 'native') {
        const lease = path === 'lease' ? { lease: { hotMs: hotMsOf(mode) } } : {}
        const { endpoint } = served
        return nativeClientSampler({ ...spec, endpoint, process: kind, transport, mode, pinning, ...lease })
      }
      if (path === 'host') return callSampler(client, served.process, spec)
      const lease = await leaseWorker(served.process, { transport, mode, pinning })
      return callSampler(client, lease, spec, async () => void (await lease.close()))
    }
    return { labels, open }
  }
}
