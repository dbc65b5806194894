/** The node agent: creates processes on first use, keeps their hosts alive, and knows the applications. */
import { processDefaults, withoutUndefined } from '../client/process_options.js'
import type {
  AppDescription,
  ControlPlane,
  DeployRequest,
  LogChunk,
  ProcessDescription,
  ProcessHandle,
  ProcessOptions,
  TokenRequest,
  WaitOptions,
} from '../control.js'
import { describeApplication, loadApplication, type Application } from '../deploy/application.js'
import { DeployError, ProcessError } from '../errors.js'
import { checkName } from '../limits.js'
import { segmentInUse } from './named_objects.js'
import { HostPool } from './host_pool.js'
import { readLog } from './log_reader.js'
import { loadTexts } from './load_texts.js'
import { ManagedProcess } from './managed_process.js'
import type { RuntimeDirectory } from './runtime_directory.js'
import { workerCounts } from './worker_counts.js'

export interface AgentOptions {
  readonly directory: RuntimeDirectory
  /** Folder for bundles and copies of libraries, its own. */
  readonly apps: string
  /** Control URL of this agent. */
  readonly url: string
  /** Address the data ports of processes listen on. */
  readonly listenHost: string
  /** What processes are created with unless the request says otherwise. */
  readonly defaults: ProcessOptions
  /** Hosts kept waiting for processes. */
  readonly prewarm: number
  readonly checkViews: boolean
  /** Leaves the state of processes behind when the agent ends. */
  readonly keep: boolean
}

/** The segment was there before, and stays. */
const foreignCodes: ReadonlySet<string> = new Set(['ERR_PROCESS_BUSY', 'ERR_SEGMENT_INVALID', 'ERR_SEGMENT_STUCK'])

export class Agent implements ControlPlane {
  readonly url: string
  readonly #options: AgentOptions
  readonly #pool: HostPool
  readonly #apps = new Map<string, Application>()
  readonly #processes = new Map<string, ManagedProcess>()
  /** Requests that create or end a process, by its id: one at a time. */
  readonly #changing = new Map<string, Promise<unknown>>()
  readonly #deploying = new Set<Promise<unknown>>()
  #closed = false

  constructor(options: AgentOptions) {
    this.url = options.url
    this.#options = options
    this.#pool = new HostPool({ runtimeDir: options.directory.path, checkViews: options.checkViews }, options.prewarm)
  }

  async list(): Promise<ProcessDescription[]> {
    return Array.from(this.#processes.values(), (process) => process.describe()).sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  async find(id: string, wait: WaitOptions): Promise<ProcessHandle> {
    const process = this.#get(id)
    await process.whenReady(wait)
    return { process: process.describe(), endpoint: process.endpoint }
  }

  async ensure(id: string, options: ProcessOptions, wait: WaitOptions): Promise<ProcessHandle> {
    checkName('the id of a process', id)
    const deadline = performance.now() + wait.timeoutMs
    for (let changing = this.#changing.get(id); changing; changing = this.#changing.get(id)) {
      // Created or ended by somebody else just now; what came of it decides what is to be done.
      await changing.catch(() => undefined)
    }
    this.#throwIfClosed()
    if (!this.#processes.has(id)) await this.#change(id, () => this.#create(id, options, deadline, wait))
    return this.find(id, { ...wait, timeoutMs: Math.max(deadline - performance.now(), 1) })
  }

  async token(id: string, request: TokenRequest): Promise<string> {
    return this.#get(id).token(request)
  }

  async drain(id: string, timeoutMs: number): Promise<void> {
    await this.#get(id).drain(timeoutMs)
  }

  async remove(id: string, options: { readonly timeoutMs: number; readonly keep: boolean }): Promise<void> {
    await this.#changing.get(id)?.catch(() => undefined)
    const process = this.#get(id)
    await this.#change(id, () => this.#end(process, options))
  }

  async deploy(request: DeployRequest): Promise<AppDescription> {
    return describeApplication(await this.#deploy(request))
  }

  async logs(id: string, offset: number, waitMs: number, signal?: AbortSignal): Promise<LogChunk> {
    return readLog(this.#get(id).paths.log, offset, waitMs, signal)
  }

  /** Ends all processes. */
  async close(timeoutMs = 5_000): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    await Promise.all([
      this.#pool.close(),
      ...Array.from(this.#processes.values(), (process) => process.stop(timeoutMs)),
      // Who creates or ends one may have all the time in the world. What is left of it is decided there.
      Promise.allSettled(this.#changing.values()),
      Promise.allSettled(this.#deploying),
    ])
    const { keep } = this.#options
    await Promise.all(Array.from(this.#processes.values(), (process) => this.#end(process, { timeoutMs, keep })))
  }

  /** Ends all at once, when the OS process exits without `close`. */
  kill(): void {
    this.#closed = true
    this.#pool.kill()
    for (const process of this.#processes.values()) {
      process.kill(this.#options.keep)
      if (!this.#options.keep) this.#options.directory.removeProcessFolder(process.id)
    }
    this.#processes.clear()
  }

  async #create(id: string, requested: ProcessOptions, deadline: number, wait: WaitOptions): Promise<void> {
    const { directory, defaults, listenHost, checkViews } = this.#options
    const { app: reference, ...requestedOptions } = { ...defaults, ...withoutUndefined(requested) }
    const app = await this.#app(reference)
    const options = { ...processDefaults, ...requestedOptions, ...workerCounts(requestedOptions, app) }
    const { maxContiguousBytes } = options
    const load = loadTexts(app, { control: this.url, checkViews, maxContiguousBytes })
    wait.signal?.throwIfAborted()
    this.#throwIfClosed()
    const paths = directory.createProcessFolder(id)
    const inUse = segmentInUse(paths.segment)
    if (inUse === true) {
      throw new ProcessError(
        'ERR_PROCESS_BUSY',
        `process ${id} is served by a live host of another cluster in ${directory.path}; call that one, or stop it first`,
      )
    }
    const process = new ManagedProcess({
      id,
      options,
      app: app.name,
      load,
      paths,
      key: directory.processKey(id),
      runtimeDir: directory.path,
      listenHost,
      takeHost: () => this.#pool.take(),
    })
    this.#processes.set(id, process)
    try {
      await process.whenReady({ ...wait, timeoutMs: deadline - performance.now() })
    } catch (error) {
      // It never took a call. What it found, or might have found had it got as far, is not its own: the state of an
      // earlier process, or another host may be using it, or another version made it.
      if (!process.wasReady) {
        const foreign = error instanceof ProcessError && foreignCodes.has(error.code)
        await this.#end(process, { timeoutMs: 0, keep: foreign || inUse !== undefined })
      }
      throw error
    }
  }

  async #end(process: ManagedProcess, options: { readonly timeoutMs: number; readonly keep: boolean }): Promise<void> {
    await process.end(options)
    if (!options.keep) this.#options.directory.removeProcessFolder(process.id)
    this.#processes.delete(process.id)
  }

  async #change(id: string, change: () => Promise<void>): Promise<void> {
    const changing = change()
    this.#changing.set(id, changing)
    try {
      await changing
    } finally {
      this.#changing.delete(id)
    }
  }

  /** The application of a new process: by path, by name, or the default. */
  async #app(reference: string | undefined): Promise<Application> {
    const found = reference === undefined ? this.#onlyApp() : this.#apps.get(reference)
    if (found) return found
    if (reference?.startsWith('/')) return this.#deploy({ entry: reference })
    const names = [...this.#apps.keys()]
    const deployed = names.length === 0 ? 'none is deployed' : `deployed are ${names.join(', ')}`
    const wanted =
      reference === undefined ? 'no application was named' : `there is no application ${JSON.stringify(reference)}`
    throw new DeployError('ERR_APP_UNKNOWN', `${wanted}, and ${deployed}; pass \`app\`, the path of its entry file`)
  }

  #onlyApp(): Application | undefined {
    const [first, second] = this.#apps.values()
    return second ? undefined : first
  }

  async #deploy(request: DeployRequest): Promise<Application> {
    if (request.name !== undefined) checkName('the name of an application', request.name)
    this.#throwIfClosed()
    const loading = loadApplication(request, this.#options.apps)
    this.#deploying.add(loading)
    try {
      const app = await loading
      this.#apps.set(app.name, app)
      return app
    } finally {
      this.#deploying.delete(loading)
    }
  }

  #get(id: string): ManagedProcess {
    const process = this.#processes.get(id)
    if (process) return process
    throw new ProcessError('ERR_PROCESS_UNKNOWN', `there is no process ${JSON.stringify(id)}; \`praas ps\` lists them`)
  }

  #throwIfClosed(): void {
    if (this.#closed) throw new ProcessError('ERR_PROCESS_DRAINING', 'the cluster is stopping')
  }
}
