// What do native workers cost? From starting one to its first result, a call of one, and a thousand of them.
//
// scripts/bench native [-- ROUNDS]
import { execFileSync } from 'node:child_process'
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { createHistogram, performance } from 'node:perf_hooks'
import { capabilities, Cluster, connect, type Process } from 'praas'

const rounds = Number(process.argv[2] ?? 5_000)
// This file runs as build/bench/native.mjs.
const built = fileURLToPath(new URL('../Release', import.meta.url))
const library = `${built}/praas-bench-functions.so`

function coldStart(): void {
  const arguments_ = [`${built}/praas-worker`, library, '60']
  const output = execFileSync(`${built}/praas-bench-cold`, arguments_, { encoding: 'utf8' })
  console.log('cold start, milliseconds (worker = from its start to its first result, over TCP)')
  console.table(JSON.parse(output))
}

async function roundTrips(served: Process, what: Record<string, string>): Promise<void> {
  const rows = []
  for (const fn of ['echo', 'null', 'call_null']) {
    for (const bytes of [64, 4_096, 65_536, 1_048_576]) {
      const input = new Uint8Array(bytes)
      const samples = bytes > 100_000 ? Math.ceil(rounds / 10) : rounds
      const histogram = createHistogram()
      for (let round = -Math.ceil(samples / 4); round < samples; round++) {
        const start = performance.now()
        served.invokeSync(fn, input)
        if (round >= 0) histogram.record(Math.max(1, Math.round((performance.now() - start) * 1e6)))
      }
      const us = (nanoseconds: number): number => Number((nanoseconds / 1_000).toFixed(2))
      rows.push({ ...what, fn, bytes, p50Us: us(histogram.percentile(50)), p99Us: us(histogram.percentile(99)) })
    }
  }
  console.table(rows)
}

async function calls(): Promise<void> {
  console.log('invokeSync, microseconds; echo is raw, null and call_null (which calls null) are of the C API')
  for (const mode of ['hot', 'warm']) {
    await using cluster = await Cluster.local({ hotMs: mode === 'hot' ? -1 : 0 })
    await cluster.deploy({ native: library, name: 'bench' })
    await cluster.process('bench', { app: 'bench' })
    for (const transport of ['shm', 'tcp'] as const) {
      await using client = await connect(cluster.url, {
        transport,
        ...(cluster.runtimeDir === undefined ? {} : { runtimeDir: cluster.runtimeDir }),
      })
      await roundTrips(await client.process('bench'), { transport, mode })
    }
  }
}

async function thousand(): Promise<void> {
  await using cluster = await Cluster.local()
  await cluster.deploy({ native: library, name: 'bench' })
  const begin = performance.now()
  const many = await cluster.process('many', { app: 'bench', workers: 1_000, hotMs: 0 })
  const first = performance.now()
  for (;;) {
    const { workers } = await many.describe()
    if (workers.filter(({ state }) => state === 'ready').length === 1_000) break
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const all = performance.now()
  const inputs = Array.from({ length: 10_000 }, () => new Uint8Array(64))
  for await (const _ of many.invokeMany('null', inputs)) void _
  const called = performance.now()
  await many.stop()
  console.log('1,000 native workers of one process, milliseconds')
  console.table({
    'until the first is ready': Math.round(first - begin),
    'until all are ready': Math.round(all - begin),
    '10,000 calls of 64 B by invokeMany': Math.round(called - all),
    'until all have ended': Math.round(performance.now() - called),
  })
}

console.log(
  `${cpus()[0]?.model}, ${availableParallelism()} cores, Node ${process.version}, praas ${capabilities().version}`,
)
coldStart()
await calls()
await thousand()
