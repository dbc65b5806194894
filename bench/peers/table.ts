/** The table on the terminal. */
import Table from 'cli-table3'
import { formatNs, formatRate } from '../../src/bench/report.js'
import { formatSize } from '../../src/units.js'
import type { PeerResult } from './results.js'

/**
 * Results of one function. A block per size: subjects and peers from fastest to slowest; how many times slower than its
 * floor each is, and each peer than each subject (below 1: faster).
 */
export function table(results: readonly PeerResult[]): string {
  const subjects = [...new Set(results.flatMap(({ timesSlower }) => Object.keys(timesSlower)))]
  const concurrent = results.some(({ concurrency }) => concurrency > 1)
  const figures = concurrent ? ['rate'] : ['p50', 'p99']
  const head = ['size', '', ...figures, 'floor', '÷ floor', ...subjects.map((name) => `÷ ${name.replaceAll('-', ' ')}`)]
  const printed = new Table({
    head,
    colAligns: head.map((_, column) => (column === 1 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
    wordWrap: true,
    colWidths: [9, 40, ...figures.map(() => 10), 12, 9, ...subjects.map(() => 11)],
  })
  const sizes = [...new Set(results.map(({ bytes }) => bytes))]
  for (const size of sizes) {
    if (size !== sizes[0]) printed.push(head.map(() => ''))
    const block = results.filter(({ bytes }) => bytes === size)
    block.sort((a, b) => (concurrent ? b.opsPerSec - a.opsPerSec : a.p50Ns - b.p50Ns))
    for (const { bytes, title, p50Ns, p99Ns, opsPerSec, floor, ratio, timesSlower } of block) {
      const measured = concurrent ? [formatRate(opsPerSec)] : [formatNs(p50Ns), formatNs(p99Ns)]
      const ratios = [ratio, ...subjects.map((name) => timesSlower[name] ?? null)].map(digits)
      printed.push([formatSize(bytes), title, ...measured, floor ?? '', ...ratios])
    }
  }
  return printed.toString()
}

/** Three significant digits, without an exponent. */
export function digits(value: number | null): string {
  if (value === null) return ''
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)))
}
