/** A cluster for one benchmark: nobody else uses it, and nothing is left of it. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { LocalOptions } from '../agent/cluster_local.js'
import { RuntimeDirectory } from '../agent/runtime_directory.js'
import { Cluster } from '../client/cluster.js'
import { connect } from '../client/connect.js'
import { ControlClient } from '../client/control_client.js'
import type { Process } from '../client/process.js'
import type { Endpoint, WorkerKind } from '../control.js'
import { PraasError } from '../errors.js'
import { compiledModule } from '../package.js'
import { tokenVerbs } from '../token.js'
import { moduleWithIdle, nativeWithIdle } from './idle_functions.js'
import { pinProcess, type Pinning } from './pinning.js'
import { benchProgram } from './programs.js'
import type { Mode, Transport } from './result.js'

/** How long hot workers poll: longer than what passes between two calls of a batch, over soon after it. */
const hotMs = 50

export function hotMsOf(mode: Mode): number {
  return mode === 'hot' ? hotMs : 0
}
/** Until a worker that has polled for `hotMs` sleeps. */
const hotQuietMs = hotMs + 20

/** How long native clients may go on to connect. */
const longestBenchMs = 86_400_000

/** Names the functions are deployed under. */
export const apps = {
  ...{ ts: 'bench', native: 'bench-native', state: 'bench-state' },
  ...{ 'ts-endless': 'bench-endless', 'native-endless': 'bench-native-endless' },
} as const

export function quietMsOf(mode: Mode): number {
  return mode === 'hot' ? hotQuietMs : 0
}

export class BenchCluster implements AsyncDisposable {
  readonly cluster: Cluster
  readonly #mode: Mode
  readonly #folder: string
  readonly #clients: Cluster[] = []
  readonly #removeFolder: () => void

  static async start(mode: Mode, options: LocalOptions = {}): Promise<BenchCluster> {
    const folder = mkdtempSync(join(tmpdir(), 'praas-bench-'))
    try {
      const cluster = await Cluster.local({
        hotMs: hotMsOf(mode),
        // Copies every view.
        checkViews: false,
        ...options,
        runtimeDir: folder,
      })
      return new BenchCluster(cluster, mode, folder)
    } catch (error) {
      rmSync(folder, { recursive: true, force: true })
      throw error
    }
  }

  private constructor(cluster: Cluster, mode: Mode, folder: string) {
    this.cluster = cluster
    this.#mode = mode
    this.#folder = folder
    this.#removeFolder = () => rmSync(folder, { recursive: true, force: true })
    // After that of the cluster, which needs it: when the program is interrupted.
    process.once('exit', this.#removeFolder)
  }

  /** Makes the benchmark functions of one kind known as `apps[kind]`, among `idle` others that nobody calls. */
  async deploy(kind: keyof typeof apps, idle: number = 0): Promise<void> {
    const name = apps[kind]
    switch (kind) {
      case 'native': {
        const native = benchProgram('praas-bench-functions.so')
        await this.cluster.deploy({ native, name, functions: nativeWithIdle(idle) })
        return
      }
      case 'ts':
        await this.cluster.deploy({ app: moduleWithIdle(idle, this.#folder), name })
        return
      case 'ts-endless':
        await this.cluster.deploy({ app: compiledModule('bench/endless_functions.js'), name })
        return
      case 'native-endless': {
        const native = benchProgram('praas-bench-functions.so')
        await this.cluster.deploy({ native, name, functions: { null: {}, forever: {} } })
        return
      }
      case 'state':
        await this.cluster.deploy({ app: compiledModule('bench/state_functions.js'), name, external: ['benchmark'] })
    }
  }

  /** A client of its own. It polls while it waits for a result where the mode is hot, or blocks at once if `blocking`. */
  async connect(
    transport: Transport,
    { blocking = false, ...options }: { readonly window?: string; readonly blocking?: boolean } = {},
  ): Promise<Cluster> {
    const client = await connect(this.cluster.url, {
      transport,
      runtimeDir: this.#folder,
      hotMs: this.#mode === 'hot' && !blocking ? -1 : 0,
      ...options,
    })
    this.#clients.push(client)
    return client
  }

  /** Where a client of another language connects to. */
  async endpoint(id: string): Promise<Endpoint> {
    const control = new ControlClient(this.cluster.url, RuntimeDirectory.find(this.#folder)?.token() ?? '')
    try {
      const { endpoint } = await control.find(id, { timeoutMs: 10_000 })
      return { ...endpoint, token: await control.token(id, { verbs: tokenVerbs, ttlMs: longestBenchMs }) }
    } finally {
      await control.close()
    }
  }

  /** Closes clients and processes and removes all files. */
  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) await client.close()
    await this.cluster.close()
    process.off('exit', this.#removeFolder)
    this.#removeFolder()
  }
}

/** Moves host and workers to their cores. `spread`: workers call each other, so they take turns with the client's core. */
export async function pinServer(
  served: Process,
  pinning: Pinning | undefined,
  { spread = false }: { readonly spread?: boolean } = {},
): Promise<void> {
  if (!pinning) return
  const { pid, workers } = await served.describe()
  if (pid !== undefined) await pinProcess(pid, pinning.host)
  for (const [index, worker] of workers.entries()) {
    await pinProcess(worker.pid, spread && index % 2 === 1 ? pinning.client : pinning.worker)
  }
}

/** For the workers of one process to start, however many they are. */
const startMs = 120_000

/**
 * Resolves when the process has `count` workers of a kind that are ready.
 *
 * @throws {PraasError} `ERR_UNSUPPORTED` with how many there are after two minutes
 */
export async function untilWorkers(served: Process, kind: WorkerKind, count: number): Promise<void> {
  const end = performance.now() + startMs
  for (;;) {
    const { workers } = await served.describe()
    const ready = workers.filter((worker) => worker.kind === kind && worker.state === 'ready').length
    if (ready >= count) return
    if (performance.now() > end) {
      const what = `${ready} of ${count} workers of process ${served.id} are ready after ${startMs / 1_000} s`
      throw new PraasError('ERR_UNSUPPORTED', `${what}`)
    }
    await delay(10)
  }
}
