// npx tsx examples/black-scholes/main.ts [FILE.csv] [WORKERS] [COPIES]
import { execFileSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Cluster } from 'praas'
import type { NativeFunctions } from './app.js'
import { compare, relativeDifference, rounds } from './measure.js'
import { optionFields, parsePortfolio, ranges, type Portfolio } from './portfolio.js'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const [file = here('./portfolio.csv'), workerCount = '2', copyCount = '30'] = process.argv.slice(2)
const workers = Number(workerCount)
const copies = Number(copyCount)

const csv = await readFile(file, 'utf8')
// For a comparison with more work in it: the rows of the file, many times over.
const [header = '', ...rows] = csv.trimEnd().split(/\r?\n/)
const largeCsv = [header, ...Array.from({ length: copies }, () => rows).flat()].join('\n')
const portfolio = parsePortfolio(csv)
const large = parsePortfolio(largeCsv)

const library = buildLibrary()
await using cluster = await Cluster.local()
const app = await cluster.deploy({
  app: here('./app.ts'),
  native: library,
  functions: {
    // An rFaaS function is not told how much room it has: its deployment says how large a result can be.
    nativePrice: { symbol: 'price', codec: 'Float64Array', maxOutput: Math.max(8 * large.quantities.length, 4096) },
    nativePriceRows: { symbol: 'price_rows', input: 'Uint32Array' },
  },
})
const desk = await cluster.process('desk', { app: app.name, workers, nativeWorkers: workers })
const { load, value, price, nativePrice } = desk.functions<typeof import('./app.js') & NativeFunctions>()

console.log(`${portfolio.quantities.length} options of ${basename(file)}, ${workers} workers of each kind`)
const native = await priceAll(nativePrice, portfolio)
const typescript = await priceAll(price, portfolio)
const difference = largest(native.map((each, row) => relativeDifference(each, typescript[row]!)))
check('native and TypeScript prices, largest relative difference', difference, 1e-9)
check('put-call parity, largest error relative to spot + strike', await parityError(portfolio, native), 1e-14)
check("Hull's example, a call at 4.7594 and a put at 0.8086: largest error", await exampleError(), 5e-5)

const measured = []
for (const [text, part] of [
  [csv, portfolio],
  [largeCsv, large],
] as const) {
  await load(new TextEncoder().encode(text))
  const rows = part.quantities.length
  measured.push(
    await compare('price(options)', rows, {
      native: async () => worth(await priceAll(nativePrice, part), part),
      typescript: async () => worth(await priceAll(price, part), part),
    }),
    await compare('value(), options in state', rows, {
      native: () => value({ by: 'nativePriceRows', parts: workers }),
      typescript: () => value({ by: 'priceRows', parts: workers }),
    }),
  )
}
console.log(
  `\nmilliseconds from the client's call to the portfolio's value, median of ${rounds} rounds; process.invoke() over ` +
    `${desk.transport},\n${workers} calls of ${workers} workers at a time, ${availableParallelism()} cores`,
)
console.table(measured)

/** Compiles the C++ of this example into build/. */
function buildLibrary(): string {
  const include = fileURLToPath(new URL('include', import.meta.resolve('praas/package.json')))
  const target = here('./build/libpricing.so')
  mkdirSync(here('./build'), { recursive: true })
  const options = ['-std=c++17', '-O2', '-shared', '-fPIC', '-I', include]
  execFileSync('c++', [...options, '-o', target, here('./pricing.cc'), here('./rows.cc')], { stdio: 'inherit' })
  return target
}

/** Prices of a portfolio: one call per worker, each with its share of the options. */
async function priceAll(
  price: (options: Float64Array) => Promise<Float64Array>,
  { options, quantities }: Portfolio,
): Promise<Float64Array> {
  const prices = new Float64Array(quantities.length)
  await Promise.all(
    ranges(quantities.length, workers).map(async ({ from, to }) => {
      prices.set(await price(options.subarray(from * optionFields, to * optionFields)), from)
    }),
  )
  return prices
}

function worth(prices: Float64Array, { quantities }: Portfolio): number {
  return quantities.reduce((sum, quantity, row) => sum + quantity * prices[row]!, 0)
}

/** A call minus a put is the spot minus the discounted strike, whatever the volatility. */
async function parityError(portfolio: Portfolio, prices: Float64Array): Promise<number> {
  const opposite = portfolio.options.map((field, index) => (index % optionFields === 0 ? -field : field))
  const twins = await priceAll(nativePrice, { ...portfolio, options: opposite })
  return largest(
    prices.map((price, row) => {
      const [kind = 1, spot = 0, strike = 0, years = 0, rate = 0] = portfolio.options.subarray(row * optionFields)
      const forward = spot - strike * Math.exp(-rate * years)
      return Math.abs(kind * (price - twins[row]!) - forward) / (spot + strike)
    }),
  )
}

/** Hull, Options, Futures, and Other Derivatives: spot 42, strike 40, half a year, 10 % interest, 20 % volatility. */
async function exampleError(): Promise<number> {
  const terms = [42, 40, 0.5, 0.1, 0.2]
  const [call = NaN, put = NaN] = await nativePrice(Float64Array.of(1, ...terms, -1, ...terms))
  return Math.max(Math.abs(call - 4.7594), Math.abs(put - 0.8086))
}

function check(what: string, error: number, limit: number): void {
  // A comparison with NaN is false.
  if (!(error <= limit)) throw new Error(`${what}: ${error}, more than ${limit}`)
  console.log(`${what}: ${error.toExponential(1)}`)
}

function largest(numbers: Float64Array): number {
  return numbers.reduce((most, number) => Math.max(most, number), 0)
}
