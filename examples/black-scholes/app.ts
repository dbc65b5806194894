import { defineFunction } from 'praas'
import type { Context } from 'praas'
import { priceInto } from './model.js'
import { optionFields, parsePortfolio, ranges } from './portfolio.js'

/** The functions of pricing.cc and rows.cc, under the names that main.ts deploys them with. */
export interface NativeFunctions {
  /** Prices of options that come with the call, six numbers each. */
  nativePrice(options: Float64Array): Float64Array
  /** Prices rows [from, to) of the state in place. */
  nativePriceRows(range: Uint32Array): void
}

/** What `nativePrice` does, in TypeScript. */
export const price = defineFunction({ codec: 'Float64Array' }, (options: Float64Array, ctx): Float64Array => {
  const count = options.length / optionFields
  const result = ctx.output(count * Float64Array.BYTES_PER_ELEMENT)
  const prices = new Float64Array(result.buffer, result.byteOffset, count)
  priceInto(prices, options, 0, count)
  return prices
})

/** What `nativePriceRows` does, in TypeScript. */
export const priceRows = defineFunction(
  { input: 'Uint32Array' },
  ([from = 0, to = 0]: Uint32Array, ctx): Uint8Array => {
    const { options, prices } = portfolioOf(ctx)
    priceInto(prices, options, from, to)
    return new Uint8Array(0)
  },
)

/** Puts a portfolio into the state of the process, as arrays that TypeScript and C++ read in place. */
export const load = defineFunction({ input: 'raw', output: 'json' }, (csv: Uint8Array, ctx): { rows: number } => {
  const { options, quantities } = parsePortfolio(new TextDecoder().decode(csv))
  const rows = quantities.length
  for (const key of ['options', 'quantities', 'prices']) ctx.state.delete(key)
  ctx.state.array('options', Float64Array, options.length).set(options)
  ctx.state.array('quantities', Float64Array, rows).set(quantities)
  ctx.state.array('prices', Float64Array, rows)
  return { rows }
})

interface Valuation {
  /** Who prices the rows. */
  by: 'nativePriceRows' | 'priceRows'
  /** Calls at a time. */
  parts: number
}

/** What the portfolio in the state is worth: other workers price its rows, in C++ or in TypeScript, and this one adds up. */
export const value = defineFunction({ codec: 'json' }, async ({ by, parts }: Valuation, ctx): Promise<number> => {
  const { rows, quantities, prices } = portfolioOf(ctx)
  await Promise.all(ranges(rows, parts).map(({ from, to }) => ctx.invoke(by, Uint32Array.of(from, to))))
  return quantities.reduce((sum, quantity, row) => sum + quantity * prices[row]!, 0)
})

function portfolioOf(ctx: Context): {
  rows: number
  options: Float64Array
  quantities: Float64Array
  prices: Float64Array
} {
  const stored = ctx.state.stat('prices')
  if (!stored) throw new Error('no portfolio yet: call load first')
  const rows = stored.byteLength / Float64Array.BYTES_PER_ELEMENT
  return {
    rows,
    options: ctx.state.array('options', Float64Array, rows * optionFields),
    quantities: ctx.state.array('quantities', Float64Array, rows),
    prices: ctx.state.array('prices', Float64Array, rows),
  }
}
