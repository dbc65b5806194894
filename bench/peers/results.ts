/** From samples to figures. */
import type { Batch, Peer } from './sampler.js'

export interface Result {
  readonly suite: 'peers'
  readonly peer: string
  readonly title: string
  readonly function: 'null' | 'touch'
  readonly client: Peer['client']
  readonly bytes: number
  /** Operations at a time. */
  readonly concurrency: number
  readonly samples: number
  readonly p50Ns: number
  readonly p99Ns: number
  readonly p999Ns: number
  readonly minNs: number
  readonly opsPerSec: number
  /** How many times faster each subject is, by name: time by time, or rate by rate when several are in flight. */
  readonly fasterBy: Readonly<Record<string, number>>
}

export type Figures = Pick<Result, 'samples' | 'p50Ns' | 'p99Ns' | 'p999Ns' | 'minNs' | 'opsPerSec'>

/** @param batches  One or more, with one sample or more in all. */
export function summarize(batches: readonly Batch[]): Figures {
  const all = new Float64Array(batches.reduce((sum, { samples }) => sum + samples.length, 0))
  let filled = 0
  for (const { samples } of batches) {
    all.set(samples, filled)
    filled += samples.length
  }
  all.sort()
  const elapsedNs = batches.reduce((sum, batch) => sum + batch.elapsedNs, 0)
  return {
    samples: all.length,
    p50Ns: percentile(all, 0.5),
    p99Ns: percentile(all, 0.99),
    p999Ns: percentile(all, 0.999),
    minNs: percentile(all, 0),
    opsPerSec: (all.length / elapsedNs) * 1e9,
  }
}

/** The smallest sample that at least `share` of the samples do not exceed. */
function percentile(sorted: Float64Array, share: number): number {
  return sorted[Math.max(Math.ceil(sorted.length * share) - 1, 0)] ?? NaN
}

export interface Measured {
  readonly peer: Peer
  readonly figures: Figures
}

/** Results of one size, with each peer against each subject. */
export function compare(
  bytes: number,
  concurrency: number,
  subjects: readonly Measured[],
  peers: readonly Measured[],
): Result[] {
  const result = ({ peer, figures }: Measured, fasterBy: Record<string, number>): Result => ({
    suite: 'peers',
    peer: peer.name,
    title: peer.title,
    function: peer.function ?? 'null',
    client: peer.client,
    bytes,
    concurrency,
    ...figures,
    fasterBy,
  })
  const against = (figures: Figures): Record<string, number> =>
    Object.fromEntries(
      subjects.map((subject) => [
        subject.peer.name,
        concurrency > 1 ? subject.figures.opsPerSec / figures.opsPerSec : figures.p50Ns / subject.figures.p50Ns,
      ]),
    )
  return [
    ...subjects.map((subject) => result(subject, {})),
    ...peers.map((peer) => result(peer, against(peer.figures))),
  ]
}
