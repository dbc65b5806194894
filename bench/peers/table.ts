/** The table on the terminal. */
import Table from 'cli-table3'
import type { Result } from './results.js'

/**
 * One block per size: subjects and peers from fastest to slowest; per peer, how many times faster each subject is
 * (below 1: slower).
 */
export function table(results: readonly Result[], subjects: readonly string[]): string {
  const concurrent = results.some(({ concurrency }) => concurrency > 1)
  const printed = new Table({
    head: [
      'size',
      '',
      ...(concurrent ? ['thousand/s'] : ['p50 µs', 'p99 µs']),
      ...subjects.map((name) => `÷ ${name.replaceAll('-', ' ')}`),
    ],
    colAligns: ['right', 'left', ...Array.from({ length: subjects.length + 2 }, () => 'right' as const)],
    style: { head: [], border: [], compact: true },
    wordWrap: true,
    colWidths: [9, 40, ...(concurrent ? [12] : [10, 10]), ...subjects.map(() => 11)],
  })
  const sizes = [...new Set(results.map(({ bytes }) => bytes))]
  for (const bytes of sizes) {
    const block = results
      .filter((result) => result.bytes === bytes)
      .sort((a, b) => (concurrent ? b.opsPerSec - a.opsPerSec : a.p50Ns - b.p50Ns))
    for (const { title, p50Ns, p99Ns, opsPerSec, fasterBy } of block) {
      const figures = concurrent ? [digits(opsPerSec / 1_000)] : [digits(p50Ns / 1_000), digits(p99Ns / 1_000)]
      const ratios = subjects.map((name) => (fasterBy[name] === undefined ? '' : digits(fasterBy[name])))
      printed.push([sizeText(bytes), title, ...figures, ...ratios])
    }
    if (bytes !== sizes.at(-1)) printed.push(Array.from({ length: subjects.length + (concurrent ? 3 : 4) }, () => ''))
  }
  return printed.toString()
}

/** Three significant digits, without an exponent. */
export function digits(value: number): string {
  return value >= 100 ? Math.round(value).toLocaleString('en-US') : String(Number(value.toPrecision(3)))
}

export function sizeText(bytes: number): string {
  for (const [unit, size] of [
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size} ${unit}`
  }
  return `${bytes} B`
}
