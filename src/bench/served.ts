/** The processes whose functions are called, one per kind of function, over one transport. */
import type { Process } from '../client/process.js'
import type { Endpoint } from '../control.js'
import { apps, pinServer, quietMsOf, type BenchCluster } from './bench_cluster.js'
import { addIdleConnections, idleLabels, type IdleLoad } from './idle_load.js'
import { pinProcess, type Pinning } from './pinning.js'
import type { PlannedSubject } from './plan.js'
import type { FunctionName, Kind, Labels, Mode, SuiteName, Transport } from './result.js'
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
  readonly function: FunctionName
  readonly bytes: number
  /** Calls at a time. Default: 1. */
  readonly inFlight?: number
}

type Processes = ReadonlyMap<Kind, { readonly process: Process; readonly endpoint: Endpoint }>

export class Served {
  readonly #options: ServeOptions
  readonly #processes: Processes

  /** Creates the processes unless they are there, and connects to them. */
  static async open(bench: BenchCluster, options: ServeOptions): Promise<Served> {
    const { transport, kinds, idle, pinning } = options
    if (pinning) await pinProcess(process.pid, pinning.client)
    const client = await bench.connect(transport)
    const processes = new Map<Kind, { process: Process; endpoint: Endpoint }>()
    for (const kind of kinds) {
      const served = await client.process(kind, { app: apps[kind] })
      await pinServer(served, pinning)
      await addIdleConnections(bench, transport, kind, idle.connections)
      processes.set(kind, { process: served, endpoint: await bench.endpoint(kind) })
    }
    return new Served(options, processes)
  }

  private constructor(options: ServeOptions, processes: Processes) {
    this.#options = options
    this.#processes = processes
  }

  /** Calls of one function by each of the clients. */
  subjects(who: readonly Client[], call: CallOptions): PlannedSubject[] {
    return this.#options.kinds.flatMap((kind) => who.map((client) => this.#subject(kind, client, call)))
  }

  #subject(kind: Kind, client: Client, { suite, function: name, bytes, inFlight = 1 }: CallOptions): PlannedSubject {
    const { transport, mode, idle, pinning } = this.#options
    const labels: Labels = {
      ...{ suite, transport, path: 'host', mode, kind, function: name, call: callOf(client), client },
      ...{ bytes, concurrency: inFlight, ...idleLabels(idle) },
    }
    const spec = { function: name, bytes, inFlight, quietMs: quietMsOf(mode) }
    const open = async (): ReturnType<PlannedSubject['open']> => {
      const served = this.#processes.get(kind)
      if (!served) throw new Error(`no process serves ${kind} functions`)
      if (client !== 'native') return callSampler(client, served.process, spec)
      const { endpoint } = served
      return nativeClientSampler({ ...spec, endpoint, process: kind, transport, mode, pinning })
    }
    return { labels, open }
  }
}
