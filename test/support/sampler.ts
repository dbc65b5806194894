/** Programs that measure batches when asked: praas-floor and praas-bench-client. */
import { spawn, type ChildProcessByStdio } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Readable, Writable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'
import { packageRoot } from '../../src/package.js'

export interface Batch {
  readonly elapsedNs: bigint
  /** Nanoseconds of each operation. */
  readonly samples: BigUint64Array
}

export interface Ending {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stderr: string
}

/** A program of build/Release, for one test. */
export class SamplerProgram {
  readonly child: ChildProcessByStdio<Writable, Readable, Readable>
  /** After its end and that of everything that holds its output. */
  readonly ending: Promise<Ending>
  #received = Buffer.alloc(0)

  constructor(name: string, args: readonly string[], environment: Readonly<Record<string, string>> = {}) {
    this.child = spawn(join(packageRoot, 'build', 'Release', name), args, {
      stdio: ['pipe', 'pipe', 'pipe'],
      env: { ...process.env, ...environment },
    })
    const stderr = text(this.child.stderr)
    this.ending = once(this.child, 'close').then(async ([code, signal]) => ({ code, signal, stderr: await stderr }))
    this.child.stdin.on('error', () => undefined) // it may have ended already
    onTestFinished(async () => {
      this.child.kill('SIGKILL')
      await this.ending
    })
  }

  /** Resolves when it is set up. */
  async ready(): Promise<this> {
    const line = (await this.#take('ready\n'.length)).toString()
    if (line !== 'ready\n') throw new Error(`it wrote ${JSON.stringify(line)}`)
    return this
  }

  async batch(count: number): Promise<Batch> {
    this.child.stdin.write(`${count}\n`)
    const head = await this.#take(16)
    if (head.readBigUInt64LE(0) !== BigInt(count)) throw new Error(`it measured ${head.readBigUInt64LE(0)} operations`)
    const body = await this.#take(count * 8)
    return {
      elapsedNs: head.readBigUInt64LE(8),
      samples: BigUint64Array.from({ length: count }, (_, index) => body.readBigUInt64LE(index * 8)),
    }
  }

  /** Ends its input and resolves when it has ended. */
  end(): Promise<Ending> {
    this.child.stdin.end()
    return this.ending
  }

  async #take(bytes: number): Promise<Buffer> {
    while (this.#received.length < bytes) {
      const chunk = this.child.stdout.read() as Buffer | null
      if (chunk !== null) this.#received = Buffer.concat([this.#received, chunk])
      else if (this.child.stdout.readableEnded) throw new Error(`it ended: ${(await this.ending).stderr}`)
      else await Promise.race([once(this.child.stdout, 'readable'), once(this.child.stdout, 'end')])
    }
    const taken = this.#received.subarray(0, bytes)
    this.#received = this.#received.subarray(bytes)
    return taken
  }
}

/** One line of arguments. */
export function floor(line: string): SamplerProgram {
  return new SamplerProgram('praas-floor', line.split(' '))
}
