/** What a run gives: documented in docs/benchmarks.md. */
import type { Machine, Versions } from '../../src/bench/machine.js'
import type { Summary } from '../../src/bench/recorder.js'
import type { Measurement } from '../../src/bench/result.js'
import { compared, type Reference } from '../../src/bench/runner.js'
import type { Peer, PeerLabels, SamplerOptions } from './peer.js'

export interface PeerResult extends PeerLabels, Measurement {
  readonly suite: 'peers'
  /** As options name it. */
  readonly peer: string
  readonly title: string
  readonly bytes: number
  /** Operations at a time. */
  readonly concurrency: number
  /**
   * How many times slower it is than each subject of praas with the same function, by name: time by time, or rate by rate
   * when several are in flight. Below 1: faster. Empty for the subjects themselves.
   */
  readonly timesSlower: Readonly<Record<string, number>>
}

export interface PeerReport {
  readonly command: string
  readonly machine: Machine
  readonly versions: Versions
  readonly results: readonly PeerResult[]
}

/** One that was measured. */
export interface Measured {
  readonly peer: Peer
  readonly summary: Summary
  /** Of what took turns with it. */
  readonly floor: Reference | undefined
}

/** Results of one size: subjects first, then each peer beside its floor and beside them. */
export function compareAll(
  { bytes, inFlight }: SamplerOptions,
  subjects: readonly Measured[],
  peers: readonly Measured[],
): PeerResult[] {
  const result = ({ peer, summary, floor }: Measured, timesSlower: PeerResult['timesSlower']): PeerResult => {
    const labels = {
      ...{ suite: 'peers' as const, peer: peer.name, title: peer.title },
      ...{ ...peer.labels, bytes, concurrency: inFlight, timesSlower },
    }
    return compared(labels, summary, floor, inFlight > 1 ? 'rates' : 'times')
  }
  const slower = ({ peer, summary }: Measured): Record<string, number> => {
    const same = subjects.filter((subject) => subject.peer.labels.function === peer.labels.function)
    return Object.fromEntries(
      same.map((subject) => [
        subject.peer.name,
        inFlight > 1 ? subject.summary.opsPerSec / summary.opsPerSec : summary.p50Ns / subject.summary.p50Ns,
      ]),
    )
  }
  return [...subjects.map((one) => result(one, {})), ...peers.map((one) => result(one, slower(one)))]
}
