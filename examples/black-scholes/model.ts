/** Black-Scholes in TypeScript, line by line as in pricing.cc. */
import { optionFields } from './portfolio.js'

/** Prices of the options in rows [from, to) of `options`, into the same rows of `prices`. */
export function priceInto(prices: Float64Array, options: Float64Array, from: number, to: number): void {
  for (let row = from; row < to; row++) {
    const at = row * optionFields
    prices[row] = price(
      options[at]!,
      options[at + 1]!,
      options[at + 2]!,
      options[at + 3]!,
      options[at + 4]!,
      options[at + 5]!,
    )
  }
}

function price(kind: number, spot: number, strike: number, years: number, rate: number, volatility: number): number {
  const deviation = volatility * Math.sqrt(years)
  const d1 = (Math.log(spot / strike) + rate * years) / deviation + deviation / 2
  const d2 = d1 - deviation
  const discountedStrike = strike * Math.exp(-rate * years)
  return kind * (spot * normalCdf(kind * d1) - discountedStrike * normalCdf(kind * d2))
}

/** The normal distribution function. By erfc, because 1 + erf would lose the lower tail to rounding. */
function normalCdf(x: number): number {
  return 0.5 * erfc(-x * Math.SQRT1_2)
}

/**
 * The complementary error function, which JavaScript does not have. Relative error below 1e-14 for |x| < 8.
 *
 * (1 + 2x) exp(x²) erfc(x) is smooth on [0, ∞), and a short Chebyshev series in (x - 3.75) / (x + 3.75): Shepherd and
 * Laframboise, Mathematics of Computation 36 (1981).
 */
function erfc(x: number): number {
  const z = Math.abs(x)
  const t = (z - 3.75) / (z + 3.75)
  // Clenshaw's sum, the series from its end.
  let b0 = 0
  let b1 = 0
  for (let k = series.length - 1; k > 0; k--) {
    const b2 = b1
    b1 = b0
    b0 = 2 * t * b1 + (series[k]! - b2)
  }
  const tail = ((t * b0 - b1 + series[0]!) * Math.exp(-z * z)) / (1 + 2 * z)
  return x < 0 ? 2 - tail : tail
}

/** Computed with 40 digits; the next coefficient is 7e-17. */
const series = Float64Array.of(
  1.1775789345674017,
  -0.004590054580646478,
  -0.08424913336651792,
  0.05920993999819189,
  -0.026658668435305753,
  0.009074997670705265,
  -0.002413163540417608,
  0.0004907758365258086,
  -6.916973302501207e-5,
  4.13902798607301e-6,
  7.74038306619849e-7,
  -2.1886401049234397e-7,
  1.076499946567091e-8,
  4.521959811218287e-9,
  -7.754400208831351e-10,
  -6.318088340886684e-11,
  2.86879501093067e-11,
  1.9455868545777347e-13,
  -9.65469674843344e-13,
  3.25254814814874e-14,
  3.3478119482868056e-14,
  -1.864562880419313e-15,
  -1.2507950530688648e-15,
)
