/** A cluster as its clients hold it. */
import type { LocalOptions } from '../agent/cluster_local.js'
import type { AppDescription, ControlPlane, ProcessDescription } from '../control.js'
import { ConnectionError } from '../errors.js'
import { checkName } from '../limits.js'
import { toDeployRequest, type DeployOptions } from './deploy_options.js'
import { Link, type LinkOptions } from './link.js'
import { Process, type StopOptions } from './process.js'
import { parseProcessOptions, toProcessOptions, type CreateOptions } from './process_options.js'

export interface GetProcessOptions extends CreateOptions {
  /** Creates the process when there is none. Default: true. */
  readonly create?: boolean
  /** For creating and connecting. Default: 30 s. */
  readonly timeoutMs?: number | string
  readonly signal?: AbortSignal
}

const createMs = 30_000

/** Where processes live. Closing it closes all handles it gave; a local cluster ends with it. */
export class Cluster implements AsyncDisposable {
  readonly #control: ControlPlane
  readonly #link: LinkOptions
  readonly #processes = new Set<Process>()
  #closed = false
  /** Where sockets, token and logs of the cluster lie, when it is on this machine. */
  readonly runtimeDir: string | undefined

  /** @internal Use `connect` or `Cluster.local`. */
  constructor(control: ControlPlane, link: LinkOptions, runtimeDir: string | undefined) {
    this.#control = control
    this.#link = link
    this.runtimeDir = runtimeDir
  }

  /**
   * Starts a cluster in this OS process, with nothing to configure: agent here, process hosts and workers as its children.
   * Other programs of the same user reach it with `connect()`.
   *
   * @param options.app  Entry file of the application. Default: each process names its own.
   * @returns the cluster; `close` ends its processes and deletes their state
   */
  static async local(options: LocalOptions = {}): Promise<Cluster> {
    const { startLocalCluster } = await import('../agent/cluster_local.js')
    return startLocalCluster(options)
  }

  /** Control URL, for `connect` and the CLI's `--url`. */
  get url(): string {
    return this.#control.url
  }

  /** Control URL for other machines, of a local cluster that listens for them. */
  get listenUrl(): string | undefined {
    return this.#control.listenUrl
  }

  get closed(): boolean {
    return this.#closed
  }

  /**
   * The process of this id, created unless it is there; options of creation have no effect on one that is.
   *
   * @param id  1 … 255 bytes of UTF-8
   * @throws {ProcessError} `ERR_PROCESS_FAILED` with the reason when its workers cannot start · `ERR_PROCESS_UNKNOWN` with
   *   `create: false` · {DeployError} when its application cannot be bundled
   */
  async process(id: string, options: GetProcessOptions = {}): Promise<Process> {
    this.#throwIfClosed()
    checkName('the id of a process', id)
    const { create = true, timeoutMs = createMs, signal, ...rest } = parseProcessOptions(options, 'process')
    signal?.throwIfAborted()
    const link = new Link(this.#control, { id, create: create ? toProcessOptions(rest) : undefined }, this.#link)
    const process: Process = new Process(id, this.#control, link, () => this.#processes.delete(process))
    this.#processes.add(process)
    try {
      await link.session(timeoutMs, signal)
    } catch (error) {
      process.close()
      throw error
    }
    return process
  }

  /** All processes of the cluster. */
  async processes(): Promise<ProcessDescription[]> {
    this.#throwIfClosed()
    return this.#control.list()
  }

  /**
   * Makes an application known under a name: a module in TypeScript is bundled, shared objects with native functions are
   * loaded once to see what they have, and copied.
   *
   * ```ts
   * await cluster.deploy('app.ts')
   * await cluster.deploy({ native: './libfns.so', functions: { f: { maxOutput: '4 MiB' } } })
   * await cluster.deploy({ app: 'app.ts', native: './libfns.so' }) // they call each other and share state
   * ```
   *
   * @param app  Path or file URL of the entry: a module, a shared object (`.so`), or a PraaS function table (`.json`).
   * @throws {DeployError} `ERR_DEPLOY_FAILED` naming file and line of an import that cannot be resolved, what the dynamic
   *   loader says about a library, or the functions there are when one is missing · {ArgumentError}
   */
  async deploy(app: string | URL, options?: Omit<DeployOptions, 'app'>): Promise<AppDescription>
  async deploy(options: DeployOptions): Promise<AppDescription>
  async deploy(app: string | URL | DeployOptions, options: DeployOptions = {}): Promise<AppDescription> {
    this.#throwIfClosed()
    const given = typeof app === 'string' || app instanceof URL ? { ...options, app } : app
    return this.#control.deploy(toDeployRequest(given))
  }

  /** Ends a process without a handle of it; see `Process.stop`. */
  async stop(id: string, options: StopOptions = {}): Promise<void> {
    this.#throwIfClosed()
    const { timeoutMs = 5_000, keep = false } = options
    await this.#control.remove(id, { timeoutMs, keep })
  }

  /** What workers and host of a process wrote to stdout and stderr, the end of it first, then as it comes. */
  async *logs(
    id: string,
    options: { readonly tailBytes?: number; readonly follow?: boolean; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<string, void, void> {
    const { tailBytes = 64 * 1024, follow = false, signal } = options
    for (let offset = -tailBytes; ;) {
      this.#throwIfClosed()
      const { text, next } = await this.#control.logs(id, offset, follow ? 2_000 : 0, signal)
      if (text !== '') yield text
      else if (!follow || signal?.aborted === true) return
      offset = next
    }
  }

  /** Closes all handles. Ends the processes of a local cluster: running calls have 5 s to finish. Idempotent. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const process of this.#processes) process.close()
    await this.#control.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new ConnectionError('ERR_CLUSTER_CLOSED', 'the cluster object was closed')
  }
}
