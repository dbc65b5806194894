/** A portfolio priced by leased workers and this thread. */
import { relativeDifference } from '../black-scholes/measure.js'
import { optionFields } from '../black-scholes/portfolio.js'
import { functionName, killOne, languageOf, lease, type Leasing } from './leasing.js'
import { between, printOverhead, printSplit, printTimes, Stopwatch, type Parts, type WorkerShare } from './split.js'
import { meanPricesInto } from './stress.js'

export interface PortfolioSize {
  readonly options: number
  /** Options that go with one call. */
  readonly perCall: number
}

export async function pricePortfolio(leasing: Leasing, { options: count, perCall }: PortfolioSize): Promise<void> {
  console.log(`\nBlack-Scholes: ${count} options, each at 21 prices of its stock, ${perCall} per call`)
  const options = randomOptions(count)
  const inputs = Array.from({ length: Math.ceil(count / perCall) }, (_, index) =>
    options.subarray(index * perCall * optionFields, (index + 1) * perCall * optionFields),
  )
  const serial = priceHere(inputs)
  const alone = await priceByOne(leasing, inputs)
  const together = await priceTogether(leasing, inputs)
  if (together.killed !== undefined) console.log(together.killed)

  const expected = flat(serial.prices)
  const difference = largest(flat(together.prices).map((price, row) => relativeDifference(price, expected[row]!)))
  if (!(difference <= 1e-9)) throw new Error(`prices differ from the serial ones by ${difference} of their value`)
  console.log(`verified: prices differ from the serial ones by at most ${difference.toExponential(1)} of their value`)
  printTimes([
    ['here alone, in TypeScript', serial.ms],
    [`one leased worker alone, in ${languageOf(leasing)}`, alone.ms],
    [`here and leased workers, ${leasing.workers}`, together.watch.totalMs],
  ])
  printOverhead(alone.ms, alone.shares)
  printSplit(together.watch, together.shares, together.parts)
}

function price(input: Float64Array): Float64Array {
  const prices = new Float64Array(input.length / optionFields)
  meanPricesInto(prices, input)
  return prices
}

function priceHere(inputs: readonly Float64Array[]): { prices: Float64Array[]; ms: number } {
  // Until the compiler of JavaScript is done with it.
  for (let round = 0; round < 5; round++) price(randomOptions(500))
  const watch = new Stopwatch<'computing'>()
  watch.to('computing')
  const prices = inputs.map(price)
  watch.to()
  return { prices, ms: watch.totalMs }
}

/** All parts by one leased worker, one after the other. */
async function priceByOne(
  leasing: Leasing,
  inputs: readonly Float64Array[],
): Promise<{ ms: number; shares: WorkerShare[] }> {
  await using worker = await lease(leasing, 1)
  const name = functionName('stress', leasing)
  await worker.invoke(name, inputs[0])
  const before = await worker.accounting()
  const watch = new Stopwatch<'calling'>()
  watch.to('calling')
  for (const input of inputs) await worker.invoke(name, input)
  watch.to()
  return { ms: watch.totalMs, shares: between(before, await worker.accounting()) }
}

interface Together {
  readonly prices: Float64Array[]
  readonly parts: Parts
  readonly shares: WorkerShare[]
  readonly watch: Stopwatch<'computing' | 'waiting and calls'>
  /** Who was, and when. */
  readonly killed: string | undefined
}

/**
 * Whoever is free, this thread included, takes the next part. Parts of a worker that dies are priced by others, because the
 * function is idempotent.
 */
async function priceTogether(leasing: Leasing, inputs: readonly Float64Array[]): Promise<Together> {
  await using workers = await lease(leasing, leasing.workers)
  const name = functionName('stress', leasing)
  await Promise.all(workers.workers.map(({ worker }) => workers.invoke(name, inputs[0], { worker })))

  const prices = new Array<Float64Array>(inputs.length)
  const parts = { here: 0, workers: workers.workers.map(() => 0), total: inputs.length }
  let killed: string | undefined
  const before = await workers.accounting()
  const watch = new Stopwatch<'computing' | 'waiting and calls'>()
  const local = (input: unknown): Float64Array => {
    const activity = watch.to('computing')
    const prices = price(input as Float64Array)
    watch.to(activity)
    return prices
  }
  watch.to('waiting and calls')
  let finished = 0
  for await (const { index, output, worker } of workers.invokeMany<Float64Array>(name, inputs, {
    ordered: false,
    local,
  })) {
    prices[index] = output
    if (worker === 'local') parts.here++
    else parts.workers[worker]!++
    if (leasing.kill && ++finished === Math.ceil(inputs.length / 2)) {
      const victim = killOne(workers)
      killed =
        `worker ${victim.worker} (pid ${victim.pid}) was killed after ${finished} of ${inputs.length} parts; ` +
        'the others priced the rest'
    }
  }
  watch.to()
  return { prices, parts, shares: between(before, await workers.accounting()), watch, killed }
}

/** Options as make-portfolio.mjs of the other example makes them, always the same. */
function randomOptions(count: number): Float64Array<ArrayBuffer> {
  let state = 1
  const random = (): number => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647
  const options = new Float64Array(count * optionFields)
  for (let row = 0; row < count; row++) {
    const kind = random() < 0.5 ? 1 : -1
    const spot = 10 * 40 ** random()
    const years = Math.ceil(random() * 104) / 52
    const rate = 0.01 + 0.04 * random()
    const volatility = 0.1 + 0.5 * random()
    const strike = spot * Math.exp((4 * random() - 2) * volatility * Math.sqrt(years))
    options.set([kind, spot, strike, years, rate, volatility], row * optionFields)
  }
  return options
}

function flat(parts: readonly Float64Array[]): Float64Array {
  const numbers = new Float64Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    numbers.set(part, at)
    at += part.length
  }
  return numbers
}

/** NaN if there is one. */
function largest(numbers: Float64Array): number {
  return numbers.reduce((most, number) => (number <= most ? most : number), 0)
}
