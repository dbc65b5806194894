/** The addon in worker threads: several environments, and environments that end in the middle of something. */
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { addonPath, fn, openFiles, TestHost, text, bytes, invokeSync } from './support.js'

const inThread = (body: string, workerData: object): Worker =>
  new Worker(
    `const { workerData, parentPort } = require('node:worker_threads')
     const native = require(workerData.addon)
     const options = () => ({ host: '127.0.0.1', process: workerData.name, port: workerData.port, token: workerData.token,
       transport: workerData.transport, timeoutMs: 20000, windowBytes: 1 << 26, checksum: false, spinUs: 50 })
     const bytes = (text) => new TextEncoder().encode(text)
     ;(async () => { ${body} })().catch((error) => parentPort.postMessage({ error: String(error.stack) }))`,
    { eval: true, workerData: { addon: addonPath, ...workerData } },
  )

async function said(worker: Worker): Promise<unknown> {
  const [message] = (await once(worker, 'message')) as [{ error?: string }]
  if (message.error) throw new Error(message.error)
  return message
}

describe('in worker threads', () => {
  let host: TestHost
  beforeAll(async () => {
    host = await TestHost.start({ workers: 2, hotMs: 5 })
  })
  afterAll(() => host.stop())

  const where = (transport: string): object => ({ name: host.name, port: host.port, token: host.token, transport })

  it('loads in several environments at once', async () => {
    const workers = Array.from({ length: 4 }, () => inThread('parentPort.postMessage(native.capabilities())', {}))
    const versions = await Promise.all(workers.map((worker) => said(worker)))
    expect(versions).toHaveLength(4)
    await Promise.all(workers.map((worker) => worker.terminate()))
  })

  it.each(['shm', 'tcp'])('calls from several environments over %s', async (transport) => {
    const workers = Array.from({ length: 3 }, () =>
      inThread(
        `const connection = await native.connect(options())
         const echo = connection.resolveSync('echo', 5000).index
         let sum = 0
         for (let i = 0; i < 50; i++) sum += (await connection.invoke(echo, bytes('abc'), undefined, 0, 20000)).length
         for (let i = 0; i < 50; i++) sum += connection.invokeSync(echo, bytes('abc'), undefined, 0, 20000)
         connection.close()
         parentPort.postMessage({ sum })`,
        where(transport),
      ),
    )
    const sums = await Promise.all(workers.map((worker) => said(worker)))
    expect(sums).toEqual([{ sum: 300 }, { sum: 300 }, { sum: 300 }])
    await Promise.all(workers.map((worker) => worker.terminate()))
  })

  it.each(['shm', 'tcp'])('survives the end of an environment with calls in flight over %s', async (transport) => {
    const before = openFiles()
    for (let round = 0; round < 3; round += 1) {
      const worker = inThread(
        `const connection = await native.connect(options())
         const timer = connection.resolveSync('timer', 5000).index
         const buffer = connection.allocate(100000)
         for (let i = 0; i < 5; i++) connection.invoke(timer, bytes('1000000'), undefined, 0, 1000000).catch(() => {})
         connection.onLost(() => {})
         parentPort.postMessage({ running: connection.inFlight })`,
        where(transport),
      )
      expect(await said(worker)).toEqual({ running: 5 })
      await worker.terminate()
    }
    expect(openFiles()).toBeLessThanOrEqual(before)
    const connection = await host.connect()
    expect(text(invokeSync(connection, fn(connection, 'echo'), bytes('still there'), undefined, 0, 20_000))).toBe(
      'still there',
    )
  })

  it('ends while it connects', async () => {
    const worker = inThread(
      `native.connect(options()).catch(() => {})
       parentPort.postMessage({})`,
      where('auto'),
    )
    await said(worker)
    await worker.terminate()
  })

  it('ends with a synchronous call in flight', async () => {
    const worker = inThread(
      `const connection = await native.connect(options())
       const timer = connection.resolveSync('timer', 5000).index
       parentPort.postMessage({})
       try { connection.invokeSync(timer, bytes('1000000'), undefined, 0, 300) } catch {}`,
      where('shm'),
    )
    await said(worker)
    await worker.terminate()
  })
})
