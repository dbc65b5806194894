/** A process host with workers on the bare addon, and connections to it. */
import { spawn, type ChildProcess } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { formatLine, LineSplitter, parseLine, type Line } from '../../src/agent/line_protocol.js'
import { hostExecutablePath, native, type NativeConnection } from '../../src/native/binding.js'
import { loadAddon } from '../../src/native/load.js'
import { mintToken, tokenVerbs } from '../../src/token.js'

const workerScript = fileURLToPath(new URL('../fixtures/raw_worker.mjs', import.meta.url))

export const addonPath: string = loadAddon().path

export interface HostSettings {
  workers?: number
  concurrency?: number
  hotMs?: number
  timeoutMs?: number
  graceMs?: number
  maxContiguous?: number
  app?: object
}

export class TestHost {
  readonly name = `addon-${process.pid}-${randomBytes(4).toString('hex')}`
  readonly #key = randomBytes(32).toString('base64url')
  readonly segment = `/praas-${this.name}`
  readonly lines: Line[] = []
  port = 0
  readonly #child: ChildProcess
  readonly #control: Duplex
  readonly #directory = mkdtempSync(join(tmpdir(), 'praas-addon-'))
  readonly #connections: NativeConnection[] = []
  #arrived: () => void = () => undefined

  private constructor(settings: HostSettings) {
    this.#child = spawn(
      hostExecutablePath(),
      ['--control-fd', '3', '--runtime-dir', this.#directory, '--', process.execPath, workerScript, addonPath],
      { stdio: ['ignore', 'inherit', 'inherit', 'pipe'] },
    )
    this.#control = this.#child.stdio[3] as Duplex
    const splitter = new LineSplitter()
    this.#control.on('error', () => undefined)
    this.#control.on('data', (bytes: Buffer) => {
      for (const line of splitter.add(bytes)) this.lines.push(parseLine(line))
      this.#arrived()
    })
    this.#child.on('exit', () => this.#arrived())
    const { app = {}, ...numbers } = settings
    this.#control.write(
      formatLine('assign', {
        process: this.name,
        segment: this.segment,
        queue: this.segment,
        key: this.#key,
        socket: join(this.#directory, 'host.sock'),
        objects: join(this.#directory, 'objects'),
        log: join(this.#directory, 'log'),
        app: JSON.stringify(app),
        memory: 64 << 20,
        pool: 256 << 20,
        workers: 1,
        ...numbers,
      }),
    )
  }

  static async start(settings: HostSettings = {}): Promise<TestHost> {
    const host = new TestHost(settings)
    try {
      const ready = await host.line('ready')
      host.port = Number(ready.values['port'])
      for (let index = 0; index < (settings.workers ?? 1); index += 1)
        await host.line('worker', { state: 'ready' }, index)
      return host
    } catch (error) {
      await host.stop()
      throw error
    }
  }

  /** Opens connections to it. */
  get token(): string {
    const expiresMs = Date.now() + 3_600_000
    return mintToken(this.#key, { process: this.name, verbs: tokenVerbs, expiresMs, endsConnections: false })
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** The `nth` line of this kind, now or when it comes. */
  async line(verb: string, values: Record<string, string> = {}, nth = 0): Promise<Line> {
    for (;;) {
      const found = this.lines.filter(
        (line) => line.verb === verb && Object.entries(values).every(([key, value]) => line.values[key] === value),
      )[nth]
      if (found) return found
      const failed = this.lines.find((line) => line.verb === 'failed')
      if (failed && verb !== 'failed') throw new Error(`the host failed: ${failed.values['message']}`)
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) throw new Error('the host has ended')
      await new Promise<void>((resolve) => (this.#arrived = resolve))
    }
  }

  async connect(transport: 'auto' | 'shm' | 'verbs' | 'tcp' = 'auto', options: object = {}): Promise<NativeConnection> {
    const connection = await native().connect({
      host: '127.0.0.1',
      port: this.port,
      process: this.name,
      token: this.token,
      transport,
      timeoutMs: 20_000,
      windowBytes: 64 << 20,
      checksum: false,
      spinUs: 50,
      ...options,
    })
    this.#connections.push(connection)
    return connection
  }

  send(verb: string, values: Record<string, string | number> = {}): void {
    this.#control.write(formatLine(verb, values))
  }

  async kill(): Promise<void> {
    const exit =
      this.#child.exitCode === null && this.#child.signalCode === null ? once(this.#child, 'exit') : undefined
    this.#child.kill('SIGKILL')
    await exit
  }

  async stop(): Promise<void> {
    for (const connection of this.#connections) connection.close()
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exit = once(this.#child, 'exit')
      this.send('stop')
      await exit
    }
    native().unlinkSharedMemory(this.segment)
    native().unlinkMessageQueue(this.segment)
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

export const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes)
export const bytes = (value: unknown): Uint8Array =>
  new TextEncoder().encode(typeof value === 'string' ? value : JSON.stringify(value))
export const parsed = (result: Uint8Array): unknown => JSON.parse(text(result)) as unknown

/** What a promise rejects with. */
export async function rejection(promise: Promise<unknown>): Promise<Error & { code?: string }> {
  try {
    await promise
  } catch (error) {
    return error as Error
  }
  throw new Error('resolved, although a rejection was expected')
}

/** What a function throws. */
export function thrown(run: () => unknown): Error & { code?: string } {
  try {
    run()
  } catch (error) {
    return error as Error
  }
  throw new Error('returned, although an error was expected')
}

/** The result of `invokeSync`, wherever native code has left it. */
export function invokeSync(
  connection: NativeConnection,
  ...call: Parameters<NativeConnection['invokeSync']>
): Uint8Array {
  const result = connection.invokeSync(...call)
  return typeof result === 'number' ? connection.scratch.slice(0, result) : result
}

/** The index of a function, resolved. */
export const fn = (connection: NativeConnection, name: string): number => connection.resolveSync(name, 5_000).index

/** Open descriptors of this OS process. */
export const openFiles = (): number => readdirSync('/proc/self/fd').length
