/** What options are worth when prices move: stress.cc in TypeScript. */
import { priceInto } from '../black-scholes/model.js'
import { optionFields } from '../black-scholes/portfolio.js'

/** The spot moves by -20 % … +20 %, in steps of 2 %. */
const steps = 10

/** The mean of each option's prices, into `means`. */
export function meanPricesInto(means: Float64Array, options: Float64Array): void {
  const moved = options.slice()
  const prices = new Float64Array(means.length)
  means.fill(0)
  for (let step = -steps; step <= steps; step++) {
    for (let at = 1; at < options.length; at += optionFields) moved[at] = options[at]! * (1 + 0.02 * step)
    priceInto(prices, moved, 0, prices.length)
    for (let row = 0; row < means.length; row++) means[row]! += prices[row]!
  }
  for (let row = 0; row < means.length; row++) means[row]! /= 2 * steps + 1
}
