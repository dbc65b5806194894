import { defineFunction } from 'praas'
import type { Context } from 'praas'
import { optionFields } from '../black-scholes/portfolio.js'
import { fillSource, sweepHeader, sweepRows } from './poisson.js'
import { meanPricesInto } from './stress.js'

/** What options that come with the call are worth when prices move. */
export const stress = defineFunction(
  { codec: 'Float64Array', idempotent: true },
  (options: Float64Array, ctx): Float64Array => {
    const means = resultOf(ctx, options.length / optionFields)
    meanPricesInto(means, options)
    return means
  },
)

/**
 * One sweep over rows of the grid in the state. It reads one grid and writes the other, so it can be repeated when its
 * worker dies.
 *
 * Input: width, which grid is read (0 or 1), first row, row after the last, whether the first row is asked for; then, if
 * the rows above are elsewhere, the last of them. Result: the first row, if it was asked for.
 */
export const sweep = defineFunction(
  { codec: 'Float64Array', idempotent: true },
  (input: Float64Array, ctx): Float64Array => {
    const [width = 0, reads = 0, from = 0, to = 0, asked = 0] = input
    const { current, next, source } = grids(ctx, width, reads)
    if (input.length > sweepHeader) current.set(input.subarray(sweepHeader), (from - 1) * width)
    sweepRows(next, current, source, width, from, to)
    return asked ? copied(ctx, next.subarray(from * width, (from + 1) * width)) : new Float64Array(0)
  },
)

/** Puts the problem into the state: two grids of zeros, and the source. */
export const prepare = defineFunction({ codec: 'json' }, (width: number, ctx): void => {
  for (const key of ['grid 0', 'grid 1', 'source']) ctx.state.delete(key)
  fillSource(grids(ctx, width, 0).source, width)
})

/** Rows [from, to) of a grid. Input: width, which grid, from, to. */
export const getRows = defineFunction(
  { codec: 'Float64Array', idempotent: true },
  ([width = 0, grid = 0, from = 0, to = 0]: Float64Array, ctx): Float64Array =>
    copied(ctx, grids(ctx, width, grid).current.subarray(from * width, to * width)),
)

/** Writes rows of a grid. Input: width, which grid, first row; then the rows. */
export const putRows = defineFunction(
  { input: 'Float64Array', idempotent: true },
  (input: Float64Array, ctx): Uint8Array => {
    const [width = 0, grid = 0, from = 0] = input
    grids(ctx, width, grid).current.set(input.subarray(3), from * width)
    return new Uint8Array(0)
  },
)

/** Memory where the caller reads it. */
function resultOf(ctx: Context, count: number): Float64Array {
  const output = ctx.output(count * Float64Array.BYTES_PER_ELEMENT)
  return new Float64Array(output.buffer, output.byteOffset, count)
}

function copied(ctx: Context, numbers: Float64Array): Float64Array {
  const copy = resultOf(ctx, numbers.length)
  copy.set(numbers)
  return copy
}

function grids(
  ctx: Context,
  width: number,
  reads: number,
): { current: Float64Array; next: Float64Array; source: Float64Array } {
  const array = (key: string): Float64Array => ctx.state.array(key, Float64Array, width * width)
  return { current: array(`grid ${reads}`), next: array(`grid ${1 - reads}`), source: array('source') }
}
