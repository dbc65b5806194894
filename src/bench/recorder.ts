/** Collects batches of one sampler. */
import * as hdr from 'hdr-histogram-js'
import type { Batch } from './sampler.js'

/** An hour: longer times are recorded as this. */
const longestNs = 3_600e9

export interface Summary {
  readonly samples: number
  readonly p50Ns: number
  readonly p99Ns: number
  readonly p999Ns: number
  readonly minNs: number
  readonly opsPerSec: number
}

/** A histogram with three significant digits, and exact minimum and rate. */
export class Recorder {
  readonly #histogram = hdr.build({
    lowestDiscernibleValue: 1,
    highestTrackableValue: longestNs,
    numberOfSignificantValueDigits: 3,
  })
  #samples = 0
  #minNs = Infinity
  #elapsedNs = 0

  add({ elapsedNs, timesNs }: Batch): void {
    for (const time of timesNs) {
      this.#histogram.recordValue(Math.min(Math.max(1, Math.round(time)), longestNs))
      if (time < this.#minNs) this.#minNs = time
    }
    this.#samples += timesNs.length
    this.#elapsedNs += elapsedNs
  }

  summary(): Summary {
    const at = (percentile: number): number => this.#histogram.getValueAtPercentile(percentile)
    return {
      samples: this.#samples,
      p50Ns: at(50),
      p99Ns: at(99),
      p999Ns: at(99.9),
      minNs: Math.round(this.#minNs),
      opsPerSec: this.#elapsedNs === 0 ? 0 : (this.#samples / this.#elapsedNs) * 1e9,
    }
  }
}

/** Of times below a few nanoseconds, which a histogram of integers cannot hold. */
export function summaryOf(timesNs: readonly number[]): Summary {
  const sorted = timesNs.toSorted((a, b) => a - b)
  const at = (percentile: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor((sorted.length * percentile) / 100))] ?? 0
  return {
    samples: sorted.length,
    p50Ns: at(50),
    p99Ns: at(99),
    p999Ns: at(99.9),
    minNs: sorted[0] ?? 0,
    opsPerSec: at(50) === 0 ? 0 : 1e9 / at(50),
  }
}
