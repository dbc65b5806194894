// npx tsx examples/quickstart/main.ts [FILE.csv]
import { readFile } from 'node:fs/promises'
import { createHistogram, performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Cluster, connect } from 'praas'

const [file = fileURLToPath(new URL('../kmeans/data/iris.csv', import.meta.url))] = process.argv.slice(2)
type App = typeof import('./app.js')

await using cluster = await Cluster.local({ app: new URL('./app.ts', import.meta.url), hotMs: 20 })
const points = await cluster.process('points')
const { load, seed, assign } = points.functions<App>()

// The points go into the state of the process once; every later call finds them there.
const { rows, columns, names } = await load(await readFile(file))
console.log(`${rows} points × ${columns} columns (${names.join(', ')}) are in the state of process "${points.id}"`)

let centroids = await seed({ k: 3, seed: 7 })
let inertia = Infinity
for (let iteration = 1; ; iteration++) {
  const { sums, counts, inertia: now } = await assign({ from: 0, to: rows, centroids })
  centroids = centroids.map((old, k) => old.map((value, column) => (counts[k] ? sums[k]![column]! / counts[k] : value)))
  if (inertia - now < 1e-9) {
    console.log(
      `k-means converged after ${iteration} iterations, inertia ${now.toFixed(3)}; cluster sizes ${counts.join(', ')}`,
    )
    break
  }
  inertia = now
}

// Another client sees the same state, over TCP as from another machine.
await using remote = await connect(undefined, { transport: 'tcp', runtimeDir: cluster.runtimeDir })
const samePoints = await remote.process('points')
const keys: string[] = []
for await (const { key } of samePoints.state.keys()) keys.push(key)
console.log(`a second client, over ${samePoints.transport}, finds the keys ${keys.join(', ')}`)

console.log('\nmicroseconds of a call      client            bytes      p50      p99')
for (const process of [points, samePoints]) {
  for (const bytes of [64, 4096]) {
    const input = new Uint8Array(bytes)
    const calls = {
      invokeSync: () => process.invokeSync('echo', input),
      'await invoke': () => process.invoke('echo', input),
    }
    for (const [name, call] of Object.entries(calls)) {
      const histogram = createHistogram()
      for (let round = 0; round < 3000; round++) {
        const start = performance.now()
        await call()
        if (round >= 1000) histogram.record(Math.max(1, Math.round((performance.now() - start) * 1e6)))
      }
      const us = (percentile: number): string => (histogram.percentile(percentile) / 1e3).toFixed(1).padStart(8)
      console.log(`${process.transport.padEnd(27)} ${name.padEnd(14)} ${String(bytes).padStart(8)} ${us(50)} ${us(99)}`)
    }
  }
}
