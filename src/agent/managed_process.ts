/** A cloud process as its agent keeps it: one host at a time, restarted on the same segment and port when it dies. */
import { setTimeout as delay } from 'node:timers/promises'
import { once } from 'node:events'
import type {
  Endpoint,
  ProcessDescription,
  ProcessOptions,
  ProcessState,
  TokenRequest,
  WaitOptions,
} from '../control.js'
import type { PraasError } from '../errors.js'
import { ConnectionError, messageOf, ProcessError } from '../errors.js'
import { mintToken, tokenVerbs } from '../token.js'
import { describeExit, type HostExit, type HostProcess, type HostReady, type HostWorker } from './host_process.js'
import type { LoadTexts } from './load_texts.js'
import { readLog } from './log_reader.js'
import { readRegistry, removeObject } from './named_objects.js'
import type { ProcessPaths } from './runtime_directory.js'

export interface ManagedProcessOptions {
  readonly id: string
  /** `workers` and `nativeWorkers` are 0 when the application has no functions for them. */
  readonly options: Required<Omit<ProcessOptions, 'app'>>
  /** Name of the application. */
  readonly app: string
  readonly load: LoadTexts
  readonly paths: ProcessPaths
  /** Tokens of its clients are signed with it; base64url. */
  readonly key: string
  readonly runtimeDir: string
  /** Address hosts listen on. */
  readonly listenHost: string
  /** Gives a host that has no process yet. */
  readonly takeHost: () => HostProcess
}

/** Pauses before the first, second, … restart in a row. */
const restartPausesMs = [0, 100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000]
/** A host that lived this long starts a new row. */
const healthyMs = 10_000
/** Restarts in a row on the same port; then any port will do, because somebody else may have taken it. */
const samePortAttempts = 4
/**
 * How long a client of the cluster's owner may take to connect. Its connection stays: it has to live on while no agent is
 * there to renew anything, and while the program computes without a look at its event loop.
 */
const endpointTokenMs = 60_000
const clueBytes = 4_096

export class ManagedProcess {
  readonly id: string
  readonly paths: ProcessPaths
  readonly #given: ManagedProcessOptions
  readonly #createdMs = Date.now()
  readonly #workers = new Map<number, HostWorker>()
  #host: HostProcess | undefined
  #ready: HostReady | undefined
  /** Clients know it; the next host gets the same. */
  #port = 0
  #failure: PraasError | undefined
  /** Why the present host does not serve the process, or the last one did not. */
  #refusal: PraasError | undefined
  #wasReady = false
  #attached = false
  #restarts = 0
  #failuresInRow = 0
  #startedMs = 0
  #ending = false
  #draining = false
  /** Woken by every change of the state. */
  #waiting: (() => void)[] = []

  constructor(given: ManagedProcessOptions) {
    this.id = given.id
    this.paths = given.paths
    this.#given = given
    this.#start()
  }

  get state(): ProcessState {
    if (this.#draining || this.#ending) return 'draining'
    if (this.#failure) return 'failed'
    return this.#ready && this.#workersReady() ? 'ready' : 'starting'
  }

  /** Whether it ever took calls. */
  get wasReady(): boolean {
    return this.#wasReady
  }

  get endpoint(): Endpoint {
    const expiresMs = Date.now() + endpointTokenMs
    const token = mintToken(this.#given.key, { process: this.id, verbs: tokenVerbs, expiresMs, endsConnections: false })
    return { host: this.#given.listenHost, port: this.#port, token }
  }

  token({ verbs, ttlMs }: TokenRequest): string {
    const expiresMs = Date.now() + ttlMs
    return mintToken(this.#given.key, { process: this.id, verbs, expiresMs, endsConnections: true })
  }

  describe(): ProcessDescription {
    const { app, options, listenHost } = this.#given
    return {
      id: this.id,
      state: this.state,
      ...(this.#failure ? { reason: this.#failure.message } : {}),
      app,
      ...(this.#host?.pid === undefined || this.#host.exited ? {} : { pid: this.#host.pid }),
      host: listenHost,
      port: this.#port,
      workers: [...this.#workers.values()].sort((a, b) => a.index - b.index),
      memoryBytes: options.memoryBytes,
      segment: this.paths.segment,
      attached: this.#attached,
      restarts: this.#restarts,
      createdMs: this.#createdMs,
      doorbell: this.#ready?.doorbell ?? '',
    }
  }

  /**
   * Resolves when it takes calls.
   *
   * @throws {ProcessError} `ERR_PROCESS_FAILED` with the reason, what `assign` was refused with, or `ERR_PROCESS_DRAINING` ·
   *   {ConnectionError} `ERR_CONNECTION_TIMEOUT`
   */
  async whenReady({ timeoutMs, signal, onListening }: WaitOptions): Promise<void> {
    const deadline = performance.now() + timeoutMs
    for (let told = false; ;) {
      signal?.throwIfAborted()
      if (this.#failure) throw this.#failure
      if (this.#ending || this.#draining) {
        throw new ProcessError('ERR_PROCESS_DRAINING', `process ${this.id} is stopping`)
      }
      if (this.#ready && this.#workersReady()) return
      if (this.#ready && !told) {
        told = true
        onListening?.(this.endpoint)
      }
      const remaining = deadline - performance.now()
      if (remaining <= 0) {
        throw new ConnectionError(
          'ERR_CONNECTION_TIMEOUT',
          `process ${this.id} was not ready within ${Math.round(timeoutMs)} ms${await this.#clue()}`,
        )
      }
      await this.#change(remaining, signal)
    }
  }

  async drain(timeoutMs: number): Promise<void> {
    this.#draining = true
    await this.#host?.drain(timeoutMs)
  }

  /** Ends host and workers; what they leave in the system stays when `keep`. */
  async end({ timeoutMs, keep }: { readonly timeoutMs: number; readonly keep: boolean }): Promise<void> {
    await this.stop(timeoutMs)
    if (!keep) this.removeObjects()
  }

  /** Ends host and workers. Who waits until it takes calls does so no longer. */
  async stop(timeoutMs: number): Promise<void> {
    this.#ending = true
    this.#changed()
    await this.#host?.drain(timeoutMs)
    await this.#host?.stop()
  }

  /** At the end of the OS process there is no time to ask. */
  kill(keep: boolean): void {
    this.#ending = true
    this.#host?.kill()
    if (!keep) this.removeObjects()
  }

  removeObjects(): void {
    const { segment, queue, socket, objects } = this.paths
    removeObject({ kind: 'shm', name: segment })
    removeObject({ kind: 'mq', name: queue })
    removeObject({ kind: 'socket', name: socket })
    for (const object of readRegistry(objects).objects) removeObject(object)
  }

  #start(): void {
    const { takeHost, listenHost } = this.#given
    const host = takeHost()
    this.#host = host
    this.#startedMs = performance.now()
    this.#workers.clear()
    this.#ready = undefined
    this.#refusal = undefined
    const port = this.#failuresInRow < samePortAttempts ? this.#port : 0
    host.on('ready', (ready) => {
      this.#ready = ready
      this.#port = ready.port
      // Only the first host of ours can find somebody else's segment.
      if (this.#restarts === 0) this.#attached = ready.attached
      this.#changed()
    })
    host.on('worker', (worker) => this.#workerChanged(worker))
    host.on('failed', (error) => {
      // A host that does not serve the process never will; what was in its way may be gone for the next one.
      if (this.#wasReady && !this.#ready) {
        this.#refusal = error
        return host.kill()
      }
      this.#failure = error
      this.#changed()
    })
    if (host.exited) return this.#hostEnded(host, { code: null, signal: null })
    host.once('exit', (exit) => this.#hostEnded(host, exit))
    host.assign(this.#assignment(listenHost.includes(':') ? `[${listenHost}]:${port}` : `${listenHost}:${port}`))
  }

  #assignment(listen: string): Record<string, string | number> {
    const { id, options, load, paths, key } = this.#given
    return {
      process: id,
      segment: paths.segment,
      queue: paths.queue,
      memory: options.memoryBytes,
      pool: options.poolBytes,
      publications: options.publicationBytes,
      calls: options.backlog,
      workers: options.workers,
      nativeWorkers: options.nativeWorkers,
      workerMemory: options.workerMemoryBytes,
      leaseWorkers: options.leaseWorkers,
      concurrency: options.concurrency,
      hotMs: options.hotMs,
      listen,
      key,
      socket: paths.socket,
      log: paths.log,
      objects: paths.objects,
      app: load.app,
      native: load.native,
      timeoutMs: Math.ceil(options.defaultTimeoutMs),
      graceMs: Math.ceil(options.graceMs),
      maxContiguous: options.maxContiguousBytes,
      restarted: Number(this.#wasReady),
    }
  }

  #workerChanged(worker: HostWorker): void {
    if (worker.state === 'dead' || worker.state === 'failed') this.#workers.delete(worker.index)
    else this.#workers.set(worker.index, worker)
    if (worker.state === 'ready' && this.#workersReady()) {
      this.#failure = undefined
      this.#wasReady = true
    }
    this.#changed()
  }

  #hostEnded(host: HostProcess, exit: HostExit): void {
    if (this.#host !== host || this.#ending) return this.#changed()
    this.#workers.clear()
    const lived = performance.now() - this.#startedMs
    this.#failuresInRow = lived >= healthyMs ? 0 : this.#failuresInRow + 1
    const end = `the host of process ${this.id} ${describeExit(host, exit)}`
    if (!this.#ready) this.#refusal ??= new ProcessError('ERR_PROCESS_FAILED', end)
    // It told why it gives up, or never came so far: nothing would be different the next time.
    if (!this.#wasReady) {
      this.#failure ??= new ProcessError('ERR_PROCESS_FAILED', end)
      return this.#changed()
    }
    // Who waits for it is told why it is not there once it does not look like a moment's trouble.
    this.#failure = this.#failuresInRow > samePortAttempts ? this.#refusal : undefined
    this.#restarts++
    this.#changed()
    void this.#restart()
  }

  async #restart(): Promise<void> {
    const pauseMs = restartPausesMs[Math.min(Math.max(this.#failuresInRow - 1, 0), restartPausesMs.length - 1)] ?? 0
    if (pauseMs > 0) await delay(pauseMs, undefined, { ref: false })
    if (this.#ending) return
    try {
      this.#start()
    } catch (error) {
      this.#failure = new ProcessError('ERR_PROCESS_FAILED', messageOf(error), { cause: error })
      this.#changed()
    }
  }

  /** Why it may not be ready. The log of a process that never was goes with it. */
  async #clue(): Promise<string> {
    if (this.#wasReady) return `; see \`praas logs ${this.id}\``
    const { text } = await readLog(this.paths.log, -clueBytes, 0).catch(() => ({ text: '' }))
    return text === '' ? '' : `; the end of what it has printed:\n${text.trimEnd()}`
  }

  /** Whether there is a worker for each function. */
  #workersReady(): boolean {
    const { workers, nativeWorkers } = this.#given.options
    const ready = [...this.#workers.values()].filter(({ state, leased }) => state === 'ready' && !leased)
    return (
      (workers === 0 || ready.some(({ kind }) => kind === 'node')) &&
      (nativeWorkers === 0 || ready.some(({ kind }) => kind === 'native'))
    )
  }

  #changed(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const wake of waiting) wake()
  }

  /** Resolves at the next change, when the time is over, or when the signal aborts. */
  async #change(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const over = new AbortController()
    const changed = new Promise<void>((resolve) => this.#waiting.push(resolve))
    const timer = delay(timeoutMs, undefined, { signal: over.signal }).catch(() => undefined)
    const aborted = signal ? once(signal, 'abort', { signal: over.signal }).catch(() => undefined) : undefined
    await Promise.race([changed, timer, ...(aborted ? [aborted] : [])])
    over.abort()
  }
}
