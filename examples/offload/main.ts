// npx tsx examples/offload/main.ts [--workers 2] [--options 100000] [--grid 800] [--kill] …; see README.md
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Cluster } from 'praas'
import { solvePoisson } from './jacobi.js'
import { pricePortfolio } from './portfolio.js'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const { values } = parseArgs({
  options: {
    workers: { type: 'string', default: String(Math.max(2, availableParallelism() - 1)) },
    runtime: { type: 'string', default: 'native' },
    transport: { type: 'string', default: 'auto' },
    'hot-ms': { type: 'string', default: '1' },
    options: { type: 'string', default: '100000' },
    'per-call': { type: 'string', default: '500' },
    grid: { type: 'string', default: '800' },
    sweeps: { type: 'string', default: '200' },
    kill: { type: 'boolean', default: false },
  },
})
const workers = integer('workers', 1, 64)
const perCall = integer('per-call', 1, 100_000)
const points = integer('grid', 2 * workers, 10_000)
const leased = {
  runtime: oneOf('runtime', ['native', 'node']),
  workers,
  hotMs: integer('hot-ms', -1, 60_000),
  kill: values.kill,
}
const portfolio = { options: integer('options', 1, 20_000_000), perCall }
const grid = { points, sweeps: integer('sweeps', 1, 1_000_000) }
const transport = oneOf('transport', ['auto', 'shm', 'verbs', 'tcp'])

const library = buildLibrary()
// Room for the three arrays of the grid, and for what goes on around them.
const memory = 2 ** 26 + 3 * 8 * (points + 2) ** 2
await using cluster = await Cluster.local({ transport, memory })
const app = await cluster.deploy({
  app: here('./app.ts'),
  native: library,
  functions: {
    // An rFaaS function is not told how much room it has: its deployment says how large a result can be.
    nativeStress: { symbol: 'stress', codec: 'Float64Array', idempotent: true, maxOutput: Math.max(8 * perCall, 4096) },
    nativeSweep: { symbol: 'sweep_rows', codec: 'Float64Array' },
  },
})
const target = await cluster.process('offload', { app: app.name })
const languages = { native: 'C++', node: 'TypeScript' }
console.log(
  `${workers} leased workers that run ${languages[leased.runtime]}, reached over ${target.transport}, ` +
    `beside TypeScript here; ${availableParallelism()} cores`,
)
await pricePortfolio({ target, ...leased }, portfolio)
await solvePoisson({ target, ...leased }, grid)

/** Compiles the C++ of this example, and the model of the other one, into build/. */
function buildLibrary(): string {
  const include = fileURLToPath(new URL('include', import.meta.resolve('praas/package.json')))
  const libraryPath = here('./build/liboffload.so')
  mkdirSync(here('./build'), { recursive: true })
  // Contracted to fused operations, sums would be rounded otherwise than in TypeScript.
  const options = ['-std=c++17', '-O3', '-ffp-contract=off', '-shared', '-fPIC', '-I', include]
  const sources = [here('../black-scholes/pricing.cc'), here('./stress.cc'), here('./sweep.cc')]
  execFileSync('c++', [...options, '-o', libraryPath, ...sources], { stdio: 'inherit' })
  return libraryPath
}

function integer(name: keyof typeof values, from: number, to: number): number {
  const value = Number(values[name])
  if (Number.isInteger(value) && value >= from && value <= to) return value
  throw new Error(`--${name} takes an integer, ${from} … ${to}; it is ${String(values[name])}`)
}

function oneOf<Choice extends string>(name: keyof typeof values, choices: readonly Choice[]): Choice {
  const value = choices.find((choice) => choice === values[name])
  if (value !== undefined) return value
  throw new Error(`--${name} takes one of ${choices.join(', ')}; it is ${String(values[name])}`)
}
