import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Cluster } from '../../src/client/cluster.js'
import type { Process } from '../../src/client/process.js'
import { failureOf, startCluster, type FixtureApp, type TestCluster } from '../support/cluster.js'

const text = (chunks: readonly Uint8Array[]): string => Buffer.concat(chunks).toString()

async function collect(stream: AsyncIterable<Uint8Array>): Promise<Uint8Array[]> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return chunks
}

/** Bytes of a pattern, and the same sum that the fixture computes. */
async function* pattern(byteLength: number, chunkBytes: number): AsyncGenerator<Uint8Array> {
  for (let sent = 0; sent < byteLength; sent += chunkBytes) {
    yield new Uint8Array(Math.min(chunkBytes, byteLength - sent)).fill(1)
  }
}

let started: TestCluster
beforeAll(async () => {
  // Payload memory far below what the streams carry.
  started = await startCluster({ pool: '16 MiB', workers: 2 })
  await started.cluster.process('streams')
})
afterAll(() => started.close())

describe.each(['shm', 'tcp'] as const)('streams over %s', (transport) => {
  let cluster: Cluster
  let process: Process
  beforeAll(async () => {
    cluster = await connect(undefined, { runtimeDir: started.directory.path, transport, window: '16 MiB' })
    process = await cluster.process('streams')
  })
  afterAll(() => cluster.close())

  it('carry chunks both ways', async () => {
    const { upper } = process.functions<FixtureApp>()
    async function* words(): AsyncGenerator<Uint8Array> {
      for (const word of ['in ', 'small ', 'pieces']) yield Buffer.from(word)
    }
    expect(text(await collect(upper(words())))).toBe('IN SMALL PIECES')
    expect(text(await collect(process.invokeStream('upper', [Buffer.from('once')])))).toBe('ONCE')
    expect(text(await collect(process.invokeStream('upper')))).toBe('')
  })

  it('carry more than there is memory for', async () => {
    const byteLength = (96 << 20) + 12_345
    const [result] = await collect(process.invokeStream('total', pattern(byteLength, 1 << 20)))
    expect(JSON.parse(text([result ?? Buffer.of()]))).toEqual({ byteLength, sum: byteLength % 65_521 })
    let received = 0
    for await (const chunk of process.invokeStream('generate', [Buffer.from(String(byteLength))])) {
      expect(chunk[0]).toBe(3)
      received += chunk.byteLength
    }
    expect(received).toBe(byteLength)
  })

  it('make a fast source wait for a slow reader', async () => {
    let produced = 0
    async function* source(): AsyncGenerator<Uint8Array> {
      for (; produced < 512; produced++) yield new Uint8Array(256 * 1024)
    }
    const results = process.invokeStream('upper', source())
    await results.next()
    await delay(300)
    // What lies between: both directions' credits and the rings of the segment.
    expect(produced).toBeLessThan(400)
    await results.return(undefined)
  })

  it('wait for payload memory that others hold', async () => {
    // One worker's results fill the memory for results until their reader leaves; the other worker has to wait for it.
    const holder = process.invokeStream('generate', [Buffer.from(String(64 << 20))])
    await holder.next()
    const waiting = collect(process.invokeStream('upper', [Buffer.from('patience')]))
    await delay(100)
    await holder.return(undefined)
    expect(text(await waiting)).toBe('PATIENCE')
  })

  it('end with the failure of the function', async () => {
    // A failure overtakes results that wait to be sent: the function fails when its first one has been read.
    let goOn!: () => void
    const read = new Promise<void>((resolve) => {
      goOn = resolve
    })
    async function* source(): AsyncGenerator<Uint8Array> {
      await read
      yield Buffer.from('go on')
    }
    const results = process.invokeStream('failsMidway', source())
    expect(text([(await results.next()).value ?? Buffer.of()])).toBe('first')
    goOn()
    expect(await failureOf(results.next())).toMatchObject({ code: 'ERR_FUNCTION_THREW' })
  })

  it('end with the death of their worker, whatever else the thread waits for meanwhile', async () => {
    const { workers } = await process.describe()
    let arrived!: () => void
    const first = new Promise<void>((resolve) => (arrived = resolve))
    async function* source(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('first')
      await first
      for (const { pid } of workers) globalThis.process.kill(pid, 'SIGKILL')
      // Blocks until a new worker has answered: the end of the stream has come by then, and nobody has been told.
      expect(process.invokeSync('add', { a: 1, b: 2 })).toBe(3)
      yield Buffer.from('second')
    }
    const results = process.invokeStream('relay', source())
    expect(text([(await results.next()).value ?? Buffer.of()])).toBe('first')
    const failed = failureOf(results.next())
    arrived()
    expect(await failed).toMatchObject({ code: 'ERR_WORKER_CRASHED' })
  })

  it('end with the failure of their source', async () => {
    async function* source(): AsyncGenerator<Uint8Array> {
      yield Buffer.from('x')
      throw new Error('the disk is gone')
    }
    expect((await failureOf(collect(process.invokeStream('total', source())))).message).toBe('the disk is gone')
  })

  it('end with their function, though their source has nothing to say', async () => {
    let left = false
    const silent: AsyncIterableIterator<Uint8Array> = {
      next: vi
        .fn<() => Promise<IteratorResult<Uint8Array>>>()
        .mockResolvedValueOnce({ done: false, value: Buffer.from('first') })
        .mockReturnValue(new Promise(() => undefined)),
      return: () => {
        left = true
        return new Promise(() => undefined) // nor when it is told to end
      },
      [Symbol.asyncIterator]: () => silent,
    }
    expect(text(await collect(process.invokeStream('firstOf', silent)))).toBe('first')
    expect(left).toBe(true)
  })

  it('stop the function when their reader leaves', async () => {
    await process.state.delete('stopped')
    for await (const chunk of process.invokeStream('endless')) {
      expect(text([chunk])).toBe('more')
      break
    }
    await expect.poll(() => process.state.get('stopped'), { timeout: 20_000 }).toBeDefined()
  })

  it('stop when they are aborted or their time is over', async () => {
    const abort = new AbortController()
    const results = process.invokeStream('endless', [], { signal: abort.signal })
    await results.next()
    abort.abort(new Error('enough'))
    expect((await failureOf(collect(results))).message).toBe('enough')
    expect(await failureOf(collect(process.invokeStream('endless', [], { timeoutMs: 200 })))).toMatchObject({
      code: 'ERR_INVOCATION_TIMEOUT',
    })
  })

  it('are not mistaken for calls', async () => {
    expect(await failureOf(collect(process.invokeStream('echo')))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(await failureOf(collect(process.invokeStream('upper', ['text'] as never)))).toMatchObject({
      code: 'ERR_ARGUMENT_INVALID',
    })
  })
})
