/** Connections of a worker to other processes of its cluster. */
import type { Cluster } from '../client/cluster.js'
import type { Process } from '../client/process.js'

/** Opened on first use and kept for the life of the worker. */
export class PeerProcesses {
  readonly #controlUrl: string
  readonly #processes = new Map<string, Promise<Process>>()
  #cluster: Promise<Cluster> | undefined

  constructor(controlUrl: string) {
    this.#controlUrl = controlUrl
  }

  get(id: string): Promise<Process> {
    let process = this.#processes.get(id)
    if (!process) {
      process = this.#open(id)
      this.#processes.set(id, process)
      // Failures are not remembered: the next call tries again.
      process.catch(() => this.#processes.delete(id))
    }
    return process
  }

  async #open(id: string): Promise<Process> {
    return (await (this.#cluster ??= this.#connect())).process(id)
  }

  #connect(): Promise<Cluster> {
    // Loaded when needed: most applications never call another process, and workers have to start fast.
    const cluster = import('../client/connect.js').then(({ connect }) => connect(this.#controlUrl))
    cluster.catch(() => (this.#cluster = undefined))
    return cluster
  }
}
