// What does a call cost? Round trips of `echo` (the function returns its input as it stands), one at a time, by transport, client and size.
// Every sample is recorded. Floors in the same run: a round trip of Node's own sockets over TCP loopback, and of postMessage to a thread.
//
// scripts/bench invoke [-- ROUNDS]
import { once } from 'node:events'
import { appendFileSync, mkdirSync } from 'node:fs'
import { createServer, connect as connectSocket } from 'node:net'
import { availableParallelism, cpus } from 'node:os'
import { createHistogram, performance } from 'node:perf_hooks'
import { Worker } from 'node:worker_threads'
import { capabilities, Cluster, connect } from 'praas'

const rounds = Number(process.argv[2] ?? 5_000)
const sizes = [64, 4_096, 65_536, 1_048_576]

interface Row {
  readonly transport: string
  readonly client: string
  readonly mode: string
  readonly bytes: number
  readonly samples: number
  readonly p50Us: number
  readonly p99Us: number
  readonly p999Us: number
  readonly minUs: number
}
const rows: Row[] = []

async function measure(what: Pick<Row, 'transport' | 'client' | 'mode' | 'bytes'>, call: () => unknown): Promise<void> {
  const samples = what.bytes > 100_000 ? Math.ceil(rounds / 10) : rounds
  const histogram = createHistogram()
  for (let round = -Math.ceil(samples / 4); round < samples; round++) {
    const start = performance.now()
    const result = call()
    if (result instanceof Promise) await result
    if (round >= 0) histogram.record(Math.max(1, Math.round((performance.now() - start) * 1e6)))
  }
  const us = (nanoseconds: number): number => Number((nanoseconds / 1_000).toFixed(2))
  rows.push({
    ...what,
    samples,
    p50Us: us(histogram.percentile(50)),
    p99Us: us(histogram.percentile(99)),
    p999Us: us(histogram.percentile(99.9)),
    minUs: us(histogram.min),
  })
}

async function measureSockets(bytes: number): Promise<void> {
  await using server = createServer({ noDelay: true }, (socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const socket = connectSocket({ port: address.port, host: '127.0.0.1', noDelay: true })
  await once(socket, 'connect')
  const message = Buffer.alloc(bytes)
  let expected = 0
  let back: () => void = () => undefined
  socket.on('data', (chunk) => {
    expected -= chunk.length
    if (expected === 0) back()
  })
  await measure({ transport: 'node:net (floor)', client: 'await', mode: '', bytes }, () => {
    expected = bytes
    return new Promise<void>((resolve) => {
      back = resolve
      socket.write(message)
    })
  })
  socket.destroy()
}

async function measureThread(bytes: number): Promise<void> {
  const worker = new Worker(
    'const { parentPort } = require("node:worker_threads"); parentPort.on("message", (m) => parentPort.postMessage(m))',
    { eval: true },
  )
  const message = new Uint8Array(bytes)
  await measure({ transport: 'worker_threads (floor)', client: 'await', mode: '', bytes }, async () => {
    worker.postMessage(message)
    await once(worker, 'message')
  })
  await worker.terminate()
}

for (const bytes of sizes) {
  await measureSockets(bytes)
  await measureThread(bytes)
}

for (const mode of ['hot', 'warm']) {
  await using cluster = await Cluster.local({
    app: new URL('../../bench/app.ts', import.meta.url),
    hotMs: mode === 'hot' ? -1 : 0,
  })
  await cluster.process('bench')
  for (const transport of ['shm', 'tcp'] as const) {
    await using client = await connect(cluster.url, {
      transport,
      ...(cluster.runtimeDir === undefined ? {} : { runtimeDir: cluster.runtimeDir }),
    })
    const served = await client.process('bench')
    for (const bytes of sizes) {
      const input = new Uint8Array(bytes)
      await measure({ transport, client: 'invokeSync', mode, bytes }, () => served.invokeSync('echo', input))
      await measure({ transport, client: 'await invoke', mode, bytes }, () => served.invoke('echo', input))
      if (transport === 'shm') {
        const shared = served.allocate(bytes)
        await measure({ transport, client: 'invokeSync, allocate()', mode, bytes }, () =>
          served.invokeSync('echo', shared),
        )
        served.release(shared)
      }
    }
  }
}

const machine = {
  cpu: cpus()[0]?.model,
  cores: availableParallelism(),
  node: process.version,
  praas: capabilities().version,
}
console.log(`${machine.cpu}, ${machine.cores} cores, Node ${machine.node}, ${new Date().toISOString()}`)
if (machine.cores < 3) console.log('client, host and worker do not have a core each')
console.table(rows)
mkdirSync('build/bench', { recursive: true })
appendFileSync('build/bench/invoke.jsonl', `${JSON.stringify({ machine, date: new Date().toISOString(), rows })}\n`)
