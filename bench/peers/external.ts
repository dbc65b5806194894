import { once } from 'node:events'
import type { Readable } from 'node:stream'
import type { Sampler } from './sampler.js'
import { startSampler } from './service.js'

/**
 * A sampler that is a program. It writes `ready\n` when it is set up. Each line `COUNT\n` on its stdin makes it run a
 * warm-up and COUNT operations and write u64 count, u64 nanoseconds of all of them, and count × u64 nanoseconds of each,
 * little endian. It ends with its stdin.
 *
 * @throws Error with what the program wrote to stderr
 */
export async function openExternal(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv = process.env,
): Promise<Sampler> {
  const child = startSampler(command, args, env)
  let complaint = ''
  child.stderr.on('data', (chunk: Buffer) => (complaint = (complaint + chunk.toString()).slice(-2_000)))
  const ended = once(child, 'exit')
  const output = new ByteReader(child.stdout, () => `${command} ended: ${complaint.trim()}`)
  const greeting = await output.read(6)
  if (greeting.toString() !== 'ready\n') throw new Error(`${command} wrote ${JSON.stringify(greeting.toString())}`)
  return {
    sample: async (count) => {
      child.stdin.write(`${count}\n`)
      const head = await output.read(16)
      if (head.readBigUInt64LE(0) !== BigInt(count)) throw new Error(`${command} measured another number of operations`)
      const body = await output.read(8 * count)
      const samples = Float64Array.from({ length: count }, (_, index) => Number(body.readBigUInt64LE(8 * index)))
      return { elapsedNs: Number(head.readBigUInt64LE(8)), samples }
    },
    close: async () => {
      child.stdin.end()
      await ended
    },
  }
}

/** Reads pieces of known length from a stream. */
class ByteReader {
  #buffered: Buffer = Buffer.alloc(0)
  readonly #chunks: AsyncIterator<Buffer>
  readonly #explain: () => string

  constructor(stream: Readable, explain: () => string) {
    this.#chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Buffer>
    this.#explain = explain
  }

  async read(length: number): Promise<Buffer> {
    const pieces: Buffer[] = [this.#buffered]
    let available = this.#buffered.length
    while (available < length) {
      const next = await this.#chunks.next()
      if (next.done === true) throw new Error(this.#explain())
      pieces.push(next.value)
      available += next.value.length
    }
    const all = Buffer.concat(pieces)
    this.#buffered = all.subarray(length)
    return all.subarray(0, length)
  }
}
