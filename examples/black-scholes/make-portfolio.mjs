// node make-portfolio.mjs [ROWS] > portfolio.csv: a portfolio of European options, the same at every run.
const [rows = '3000'] = process.argv.slice(2)

/** A small seeded generator (mulberry32): numbers in [0, 1). */
let seed = 1973
function random() {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

const lines = ['type,quantity,spot,strike,years,rate,volatility']
for (let row = 0; row < Number(rows); row++) {
  const type = random() < 0.5 ? 'call' : 'put'
  const quantity = Math.ceil(random() * 40) * 25
  const spot = 10 * 40 ** random()
  const years = Math.ceil(random() * 104) / 52
  const rate = 0.01 + 0.04 * random()
  const volatility = 0.1 + 0.5 * random()
  // Quoted strikes lie within about two standard deviations of the price.
  const strike = spot * Math.exp((4 * random() - 2) * volatility * Math.sqrt(years))
  const columns = [spot.toFixed(2), strike.toFixed(2), years.toFixed(4), rate.toFixed(4), volatility.toFixed(4)]
  lines.push([type, quantity, ...columns].join(','))
}
console.log(lines.join('\n'))
