/** Options and how many of each, as numbers that C++ and TypeScript read alike. */
export interface Portfolio {
  /** Six numbers per option: kind (1 call, -1 put), spot, strike, years, rate, volatility. `Option` of pricing.h. */
  readonly options: Float64Array<ArrayBuffer>
  readonly quantities: Float64Array<ArrayBuffer>
}

export const optionFields = 6

const header = 'type,quantity,spot,strike,years,rate,volatility'

/** @throws {Error} naming the line that is not as it should be */
export function parsePortfolio(csv: string): Portfolio {
  const [first, ...lines] = csv.trimEnd().split(/\r?\n/)
  if (first !== header) throw new Error(`the first line of a portfolio is ${header}`)
  const options = new Float64Array(lines.length * optionFields)
  const quantities = new Float64Array(lines.length)
  lines.forEach((line, row) => {
    const [type, quantity, ...fields] = line.split(',')
    const numbers = fields.map(Number)
    const [spot = 0, strike = 0, years = 0, rate = NaN, volatility = 0] = numbers
    const valid = spot > 0 && strike > 0 && years > 0 && volatility > 0 && Number.isFinite(rate)
    if ((type !== 'call' && type !== 'put') || !valid || numbers.length !== optionFields - 1) {
      throw new Error(`line ${row + 2} of the portfolio: ${line}`)
    }
    options.set([type === 'call' ? 1 : -1, ...numbers], row * optionFields)
    quantities[row] = Number(quantity)
  })
  return { options, quantities }
}

/** [0, count) in `parts` ranges of about the same length. */
export function ranges(count: number, parts: number): { from: number; to: number }[] {
  return Array.from({ length: parts }, (_, part) => ({
    from: Math.floor((count * part) / parts),
    to: Math.floor((count * (part + 1)) / parts),
  }))
}
