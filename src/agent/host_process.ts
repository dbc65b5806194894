/** One praas-host: an OS process that serves a cloud process. Started unassigned, so that a pool of them can wait. */
import { spawn, type ChildProcess } from 'node:child_process'
import { EventEmitter, once } from 'node:events'
import type { Duplex, Readable } from 'node:stream'
import type { WorkerKind } from '../control.js'
import type { PraasError } from '../errors.js'
import { errorFromCode, messageOf, ProcessError } from '../errors.js'
import { addonPath, hostExecutablePath, nativeWorkerExecutablePath } from '../native/binding.js'
import { compiledModule } from '../package.js'
import { formatLine, LineSplitter, parseLine, type Line } from './line_protocol.js'

/** What the host says once it takes connections. */
export interface HostReady {
  readonly port: number
  readonly attached: boolean
  readonly doorbell: string
}

export interface HostWorker {
  readonly index: number
  readonly pid: number
  readonly kind: WorkerKind
  readonly leased: boolean
  readonly state: string
}

export interface HostExit {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
}

interface HostEvents {
  ready: [HostReady]
  failed: [PraasError]
  worker: [HostWorker]
  drained: []
  exit: [HostExit]
}

/** The control pipe is the first descriptor after stdio. */
const controlFd = 3
const stderrTailBytes = 4096

export interface HostOptions {
  readonly runtimeDir: string
  /** Sets PRAAS_CHECK_VIEWS for its workers. */
  readonly checkViews: boolean
}

export class HostProcess extends EventEmitter<HostEvents> {
  readonly #child: ChildProcess | undefined
  readonly #control: Duplex | undefined
  #exit: HostExit | undefined
  #stderr = ''

  constructor({ runtimeDir, checkViews }: HostOptions) {
    super()
    // It requires ES modules, whatever NODE_OPTIONS says.
    const worker = [process.execPath, '--experimental-require-module', compiledModule('worker/main.cjs'), addonPath()]
    const options = [
      ...['--control-fd', String(controlFd)],
      ...['--runtime-dir', runtimeDir],
      ...['--native-worker', nativeWorkerExecutablePath()],
    ]
    const executable = hostExecutablePath()
    // What the system lacks for another OS process is thrown or told later, depending on what it is.
    const notStarted = (error: unknown): void => {
      this.#stderr = messageOf(error)
      this.#ended({ code: null, signal: null })
    }
    try {
      this.#child = spawn(executable, [...options, '--', ...worker], {
        stdio: ['ignore', 'ignore', 'pipe', 'pipe'],
        env: hostEnvironment(checkViews),
      })
    } catch (error) {
      process.nextTick(notStarted, error)
      return
    }
    this.#child.on('error', notStarted)
    this.#child.on('exit', (code, signal) => this.#ended({ code, signal }))
    // A program that has nothing else to do ends, and its hosts with it.
    this.#child.unref()
    // Without descriptors there are none, whatever the declared type says.
    const streams = this.#child.stdio as ChildProcess['stdio'] | undefined
    if (streams === undefined) return
    this.#readStderr(streams[2] as Readable)
    this.#control = streams[controlFd] as Duplex
    this.#readControl(this.#control)
  }

  get pid(): number | undefined {
    return this.#child?.pid
  }

  get exited(): boolean {
    return this.#exit !== undefined
  }

  /** What it wrote last to stderr: why it ended. */
  get stderr(): string {
    return this.#stderr.trim()
  }

  assign(fields: Readonly<Record<string, string | number>>): void {
    this.#send('assign', fields)
  }

  /** Resolves when running calls have finished, or the time is over. */
  async drain(timeoutMs: number): Promise<void> {
    if (this.exited) return
    this.#send('drain', { timeoutMs: Math.ceil(timeoutMs) })
    await this.#first(['drained', 'exit'], timeoutMs + 1_000)
  }

  /** Ends host and workers: asked first, killed when it does not listen. */
  async stop(timeoutMs = 2_000): Promise<void> {
    if (this.exited) return
    this.#send('stop')
    if (await this.#first(['exit'], timeoutMs)) return
    this.kill()
    await this.#first(['exit'], timeoutMs)
  }

  kill(): void {
    this.#child?.kill('SIGKILL')
  }

  #send(verb: string, values: Readonly<Record<string, string | number>> = {}): void {
    if (!this.exited && this.#control?.writable === true) this.#control.write(formatLine(verb, values))
  }

  /** Whether one of the events came in time. */
  async #first(events: readonly (keyof HostEvents)[], timeoutMs: number): Promise<boolean> {
    if (this.exited) return true
    const timeout = new AbortController()
    // Referenced on purpose: whoever waits for a host waits for the end of this timer at the latest.
    const timer = setTimeout(() => timeout.abort(), timeoutMs)
    try {
      await Promise.race(events.map((event) => once(this, event, { signal: timeout.signal })))
      return true
    } catch {
      return false // aborted: nothing came
    } finally {
      clearTimeout(timer)
      timeout.abort()
    }
  }

  #readControl(control: Duplex): void {
    const lines = new LineSplitter()
    control.on('data', (bytes: Buffer) => {
      try {
        for (const line of lines.add(bytes)) this.#handle(parseLine(line))
      } catch (error) {
        // It does not speak our language: what it says next cannot be trusted either.
        this.emit('failed', new ProcessError('ERR_PROCESS_FAILED', messageOf(error), { cause: error }))
        this.kill()
      }
    })
    // Its end is seen as the end of the OS process.
    control.on('error', () => undefined)
    unref(control)
  }

  #handle({ verb, values }: Line): void {
    switch (verb) {
      case 'ready':
        this.emit('ready', {
          port: Number(values['port']),
          attached: values['attached'] === '1',
          doorbell: [values['doorbell'], values['doorbellReason']].filter(Boolean).join(': '),
        })
        break
      case 'failed':
        this.emit(
          'failed',
          errorFromCode(values['code'] ?? 'ERR_PROCESS_FAILED', values['message'] ?? 'the host failed'),
        )
        break
      case 'worker':
        this.emit('worker', {
          index: Number(values['index']),
          pid: Number(values['pid']),
          kind: values['kind'] === 'native' ? 'native' : 'node',
          leased: values['leased'] === '1',
          state: values['state'] ?? '',
        })
        break
      case 'drained':
        this.emit('drained')
        break
      default:
        break // said by a newer host
    }
  }

  #readStderr(stderr: Readable): void {
    stderr.setEncoding('utf8')
    stderr.on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-stderrTailBytes)
    })
    stderr.on('error', () => undefined)
    unref(stderr)
  }

  #ended(exit: HostExit): void {
    if (this.#exit) return
    this.#exit = exit
    this.emit('exit', exit)
  }
}

/** How an ended host is described in messages. */
export function describeExit(host: HostProcess, exit: HostExit): string {
  const how = exit.signal
    ? `was killed by ${exit.signal}`
    : exit.code === null
      ? 'could not be started'
      : `exited with code ${exit.code}`
  return host.stderr === '' ? how : `${how}: ${host.stderr}`
}

function hostEnvironment(checkViews: boolean): NodeJS.ProcessEnv {
  const environment: NodeJS.ProcessEnv = { ...process.env, PRAAS_CHECK_VIEWS: checkViews ? '1' : '0' }
  // Costs every worker 75 ms of start-up; TLS inside functions reads it from the system instead.
  delete environment['NODE_EXTRA_CA_CERTS']
  // Secrets of the control plane are none of the application's business.
  delete environment['PRAAS_TOKEN']
  return environment
}

/** Sockets and pipes of a child have it, though their declared type does not. */
function unref(stream: Readable | Duplex): void {
  ;(stream as { unref?: () => void }).unref?.()
}
