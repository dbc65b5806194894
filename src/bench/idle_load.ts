/** What else a cluster has to hold while something is measured, to see that it costs nothing. */
import { readFileSync } from 'node:fs'
import type { Process } from '../client/process.js'
import type { Endpoint } from '../control.js'
import { PraasError } from '../errors.js'
import { native, type NativeConnection } from '../native/binding.js'
import { apps, type BenchCluster } from './bench_cluster.js'
import { openFiles } from './os_usage.js'
import type { Transport } from './result.js'

export interface IdleLoad {
  /** Other connections to the process that is measured. */
  readonly connections: number
  /** Other processes of the cluster. */
  readonly processes: number
  /** Other functions of the process that is measured. */
  readonly functions: number
}

export const noLoad: IdleLoad = { connections: 0, processes: 0, functions: 0 }

/** Creates so many processes that nobody calls. */
export async function addIdleProcesses(bench: BenchCluster, count: number): Promise<Process[]> {
  const made: Process[] = []
  const small = { app: apps.ts, memory: '16MiB', pool: '16MiB' } as const
  // A few at a time: each starts two programs.
  for (let first = 0; first < count; first += 4) {
    const some = Array.from({ length: Math.min(4, count - first) }, (_, index) =>
      bench.cluster.process(`idle-${first + index}`, small),
    )
    made.push(...(await Promise.all(some)))
  }
  return made
}

/** The smallest there is. */
const windowBytes = 4 * 2 ** 20
const connectMs = 30_000

/** Connections to one process that carry no calls. */
export class IdleConnections implements Disposable {
  readonly #connections: NativeConnection[] = []

  /** @throws {PraasError} `ERR_UNSUPPORTED` when this process or the host may not have as many open files as they take */
  static async open(
    served: Process,
    endpoint: Endpoint,
    transport: Transport,
    count: number,
  ): Promise<IdleConnections> {
    const idle = new IdleConnections()
    try {
      await idle.#open(served, endpoint, transport, count)
      return idle
    } catch (error) {
      idle[Symbol.dispose]()
      throw error
    }
  }

  async #open(served: Process, endpoint: Endpoint, transport: Transport, count: number): Promise<void> {
    // Without the rest of a client, which has connections to the agent that have nothing to do with the process.
    const options = { ...endpoint, process: served.id, transport, timeoutMs: connectMs, windowBytes }
    const connect = (): Promise<NativeConnection> => native().connect({ ...options, checksum: false, spinUs: 0 })
    if (count === 0) return
    const parties = [
      { who: 'this program', pid: process.pid },
      { who: `the host of process ${served.id}`, pid: served.connection?.hostPid ?? process.pid },
    ].map((party) => ({ ...party, before: openFiles(party.pid) }))
    this.#connections.push(await connect())
    for (const { who, pid, before } of parties) {
      const needed = before + count * (openFiles(pid) - before)
      if (needed > openFilesLimit(pid)) throw tooMany(count, who, needed, openFilesLimit(pid))
    }
    while (this.#connections.length < count) this.#connections.push(await connect())
  }

  [Symbol.dispose](): void {
    for (const connection of this.#connections.splice(0)) connection.close()
  }
}

function openFilesLimit(pid: number): number {
  const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/limits`, 'utf8')) ?? []
  return soft === undefined ? Infinity : Number(soft)
}

function tooMany(connections: number, who: string, needed: number, limit: number): PraasError {
  const text = `--connections ${connections}: ${who} would have ${needed} open files, and may have ${limit} (ulimit -Hn)`
  return new PraasError('ERR_UNSUPPORTED', `${text}; over tcp, and with one --kind at a time, it takes fewer`)
}

/** As results name it. */
export function idleLabels({ connections, processes, functions }: IdleLoad): {
  idleConnections?: number
  idleProcesses?: number
  idleFunctions?: number
} {
  return {
    ...(connections > 0 ? { idleConnections: connections } : {}),
    ...(processes > 0 ? { idleProcesses: processes } : {}),
    ...(functions > 0 ? { idleFunctions: functions } : {}),
  }
}
