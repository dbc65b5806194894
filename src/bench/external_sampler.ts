/**
 * A sampler that is a program of its own: a floor, or a client without Node. It does not outlive this one.
 *
 * It writes `ready\n` when it is set up. For each line `COUNT\n` on stdin it runs a warm-up and COUNT operations, and writes
 * u64 count, u64 nanoseconds of all, and u64 nanoseconds of each, little endian. It ends with its stdin. What it has to say
 * when it fails stands on stderr.
 */
import { spawn, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { once } from 'node:events'
import { basename } from 'node:path'
import { messageOf, PraasError } from '../errors.js'
import { endsWithThis } from './children.js'
import { childEnvironment } from './environment.js'
import type { Batch, Sampler } from './sampler.js'

const headerBytes = 16
const bytesPerTime = 8

export interface ExternalOptions {
  readonly program: string
  readonly args: readonly string[]
  /** Added to this environment. */
  readonly environment?: Readonly<Record<string, string>>
  /** See `Sampler`. Default: 0. */
  readonly quietMs?: number
}

export class ExternalSampler implements Sampler {
  readonly quietMs: number
  readonly #child: ChildProcessWithoutNullStreams
  readonly #what: string
  /** What has been read and not been used. */
  #chunks: Buffer[] = []
  #available = 0
  #stderr = ''
  #ended: Error | undefined
  #wake: () => void = () => undefined

  /** @throws {PraasError} `ERR_UNSUPPORTED` with what the program says when it cannot be set up. */
  static async start(options: ExternalOptions): Promise<ExternalSampler> {
    const sampler = new ExternalSampler(options)
    try {
      const line = (await sampler.#take('ready\n'.length)).toString()
      if (line !== 'ready\n') throw sampler.#failure(`said ${JSON.stringify(line)} instead of "ready"`)
    } catch (error) {
      await sampler[Symbol.asyncDispose]()
      throw error
    }
    return sampler
  }

  private constructor({ program, args, environment = {}, quietMs = 0 }: ExternalOptions) {
    this.quietMs = quietMs
    this.#what = [basename(program), ...args].join(' ')
    const options = { env: childEnvironment(environment) }
    this.#child = endsWithThis(spawn(program, args, options))
    this.#child.stdout.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#available += chunk.length
      this.#wake()
    })
    this.#child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#stderr = (this.#stderr + text).slice(-4096)
    })
    // Its end is told by `close`.
    this.#child.stdin.on('error', () => undefined)
    this.#child.on('error', (error) => this.#end(`cannot be started: ${messageOf(error)}`))
    this.#child.on('close', (status, signal) => this.#end(signal ? `was killed by ${signal}` : `ended with ${status}`))
  }

  async run(count: number): Promise<Batch> {
    this.#child.stdin.write(`${count}\n`)
    const header = await this.#take(headerBytes)
    const recorded = Number(header.readBigUInt64LE(0))
    if (recorded !== count) throw this.#failure(`recorded ${recorded} of ${count} operations`)
    const elapsedNs = Number(header.readBigUInt64LE(8))
    const bytes = await this.#take(count * bytesPerTime)
    const timesNs = new Float64Array(count)
    for (let index = 0; index < count; index++) timesNs[index] = Number(bytes.readBigUInt64LE(index * bytesPerTime))
    return { elapsedNs, timesNs }
  }

  /** Ends the program and waits for its end. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#ended) return
    const closed = once(this.#child, 'close')
    this.#child.stdin.end()
    const patience = [
      setTimeout(() => this.#child.kill('SIGTERM'), 5_000),
      setTimeout(() => this.#child.kill('SIGKILL'), 10_000),
    ]
    await closed.catch(() => undefined)
    patience.forEach(clearTimeout)
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#available < bytes) {
      if (this.#ended) throw this.#ended
      await new Promise<void>((resolve) => (this.#wake = resolve))
    }
    const all = Buffer.concat(this.#chunks)
    this.#chunks = [all.subarray(bytes)]
    this.#available = all.length - bytes
    return all.subarray(0, bytes)
  }

  #end(how: string): void {
    this.#ended ??= this.#failure(how)
    this.#wake()
  }

  #failure(how: string): PraasError {
    const said = this.#stderr.trim()
    return new PraasError('ERR_UNSUPPORTED', `${this.#what} ${how}${said === '' ? '' : `: ${said}`}`)
  }
}
