/** Measures two ways to the same number. */
import { performance } from 'node:perf_hooks'

const warmUpRounds = 10
export const rounds = 30

export interface Ways {
  native: () => Promise<number>
  typescript: () => Promise<number>
}

/**
 * The median time of either way, as a row for console.table. They take turns, so that both meet the same machine; the
 * rounds in which the compiler of JavaScript still works do not count.
 *
 * @throws {Error} when the two results differ by more than rounding
 */
export async function compare(call: string, rows: number, ways: Ways): Promise<Record<string, string | number>> {
  const times: { [Way in keyof Ways]: number[] } = { native: [], typescript: [] }
  const values = { native: NaN, typescript: NaN }
  for (let round = -warmUpRounds; round < rounds; round++) {
    for (const way of ['native', 'typescript'] as const) {
      const start = performance.now()
      values[way] = await ways[way]()
      if (round >= 0) times[way].push(performance.now() - start)
    }
  }
  const difference = relativeDifference(values.native, values.typescript)
  if (!(difference <= 1e-9)) throw new Error(`${call}: ${values.native} natively, ${values.typescript} in TypeScript`)
  const [nativeMs, typescriptMs] = [median(times.native), median(times.typescript)]
  return {
    call,
    rows,
    'native ms': Number(nativeMs.toFixed(2)),
    'TypeScript ms': Number(typescriptMs.toFixed(2)),
    ratio: Number((typescriptMs / nativeMs).toFixed(1)),
    'portfolio value': Number(values.native.toFixed(2)),
  }
}

export function relativeDifference(a: number, b: number): number {
  return a === b ? 0 : Math.abs(a - b) / Math.max(Math.abs(a), Math.abs(b))
}

function median(numbers: number[]): number {
  return numbers.sort((a, b) => a - b)[Math.floor(numbers.length / 2)]!
}
