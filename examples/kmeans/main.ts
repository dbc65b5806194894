// npx tsx examples/kmeans/main.ts [FILE.csv] [CLUSTERS] [WORKERS]
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { Cluster } from 'praas'

const [file = fileURLToPath(new URL('./data/iris.csv', import.meta.url)), clusters = '3', workerCount = '2'] =
  process.argv.slice(2)
const k = Number(clusters)
const workers = Number(workerCount)

await using cluster = await Cluster.local({ app: new URL('./app.ts', import.meta.url) })
const kmeans = await cluster.process('kmeans', { workers })
const { load, seed, assign } = kmeans.functions<typeof import('./app.js')>()

const { rows, names } = await load(await readFile(file))
console.log(`${rows} points of ${names.join(', ')}`)

let centroids = await seed({ k, seed: 7 })
let inertia = Infinity
for (let iteration = 1; ; iteration++) {
  // The points stay where they are; only centroids and partial sums travel.
  const parts = Array.from({ length: workers }, (_, part) => ({
    from: Math.floor((rows * part) / workers),
    to: Math.floor((rows * (part + 1)) / workers),
    centroids,
  }))
  const sums = await Promise.all(parts.map((part) => assign(part)))
  const total = sums.reduce((sum, part) => sum + part.inertia, 0)
  const counts = centroids.map((_, cluster) => sums.reduce((sum, part) => sum + part.counts[cluster]!, 0))
  centroids = centroids.map((centroid, cluster) =>
    centroid.map((old, column) =>
      counts[cluster] === 0
        ? old
        : sums.reduce((sum, part) => sum + part.sums[cluster]![column]!, 0) / counts[cluster]!,
    ),
  )
  console.log(`iteration ${iteration}: inertia ${total.toFixed(3)}`)
  if (inertia - total < 1e-9) {
    console.table(
      centroids.map((centroid, cluster) => ({
        points: counts[cluster],
        ...Object.fromEntries(names.map((name, column) => [name, Number(centroid[column]!.toFixed(3))])),
      })),
    )
    break
  }
  inertia = total
}
