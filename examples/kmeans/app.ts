import { defineFunction } from 'praas'
import type { Context } from 'praas'

interface Shape {
  rows: number
  columns: number
}

/** The rows one call looks at, and the centroids to compare them with (row by row). */
interface Part {
  from: number
  to: number
  centroids: number[][]
}

interface Sums {
  sums: number[][]
  counts: number[]
  /** Sum of squared distances to the nearest centroid. */
  inertia: number
}

/** Puts the numeric columns of a CSV file with a header line into the state of the process, where every worker sees them. */
export const load = defineFunction(
  { input: 'raw', output: 'json' },
  (csv: Uint8Array, ctx): Shape & { names: string[] } => {
    const lines = new TextDecoder()
      .decode(csv)
      .split(/\r?\n/)
      .filter((line) => line.trim() !== '')
    const [header, ...body] = lines.map((line) => line.split(','))
    if (!header || !body[0]) throw new Error('the CSV file needs a header line and at least one row')
    const numeric = header.map((_, column) =>
      body.every((row) => row[column]?.trim() !== '' && Number.isFinite(Number(row[column]))),
    )
    const names = header.filter((_, column) => numeric[column])
    if (names.length === 0) throw new Error('no column of the CSV file is numeric throughout')

    const shape = { rows: body.length, columns: names.length }
    ctx.state.delete('points')
    const points = ctx.state.array('points', Float64Array, shape.rows * shape.columns)
    points.set(body.flatMap((row) => row.filter((_, column) => numeric[column]).map(Number)))
    ctx.state.set('shape', new TextEncoder().encode(JSON.stringify(shape)))
    return { ...shape, names }
  },
)

/** Rows picked far from each other (k-means++), from a seed. */
export const seed = defineFunction({ codec: 'json' }, ({ k, seed }: { k: number; seed: number }, ctx): number[][] => {
  const { points, rows, columns } = pointsOf(ctx)
  const random = mulberry32(seed)
  const row = (index: number): number[] => Array.from(points.subarray(index * columns, (index + 1) * columns))
  const centroids = [row(Math.floor(random() * rows))]
  while (centroids.length < k) {
    const distances = Array.from({ length: rows }, (_, index) => nearest(points, index, columns, centroids).distance)
    let left = random() * distances.reduce((sum, distance) => sum + distance, 0)
    const chosen = distances.findIndex((distance) => (left -= distance) <= 0)
    centroids.push(row(chosen === -1 ? rows - 1 : chosen))
  }
  return centroids
})

/** One worker's share of an iteration. */
export const assign = defineFunction({ codec: 'json', idempotent: true }, (part: Part, ctx): Sums => {
  const { points, columns } = pointsOf(ctx)
  const sums = part.centroids.map(() => new Array<number>(columns).fill(0))
  const counts = part.centroids.map(() => 0)
  let inertia = 0
  for (let index = part.from; index < part.to; index++) {
    const { cluster, distance } = nearest(points, index, columns, part.centroids)
    inertia += distance
    counts[cluster]! += 1
    const sum = sums[cluster]!
    for (let column = 0; column < columns; column++) sum[column]! += points[index * columns + column]!
  }
  return { sums, counts, inertia }
})

function pointsOf(ctx: Context): Shape & { points: Float64Array } {
  const stored = ctx.state.get('shape')
  if (!stored) throw new Error('no points yet: call load first')
  const shape = JSON.parse(new TextDecoder().decode(stored)) as Shape
  return { ...shape, points: ctx.state.array('points', Float64Array, shape.rows * shape.columns) }
}

function nearest(
  points: Float64Array,
  index: number,
  columns: number,
  centroids: number[][],
): { cluster: number; distance: number } {
  let cluster = 0
  let distance = Infinity
  centroids.forEach((centroid, candidate) => {
    let squared = 0
    for (let column = 0; column < columns; column++)
      squared += (points[index * columns + column]! - centroid[column]!) ** 2
    if (squared < distance) {
      distance = squared
      cluster = candidate
    }
  })
  return { cluster, distance }
}

/** A small seeded generator, so that a run can be repeated. */
function mulberry32(state: number): () => number {
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}
