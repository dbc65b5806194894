/** Runs subjects and their floor in turns. */
import { setTimeout as delay } from 'node:timers/promises'
import { Recorder, type Summary } from './recorder.js'
import type { Labels, Measurement, Result } from './result.js'
import type { Sampler } from './sampler.js'

/** A sampler of the floor. Several together are one floor: the sum of their times. */
export interface FloorPart {
  readonly name: string
  readonly sampler: Sampler
}

export interface Subject {
  readonly labels: Labels
  readonly sampler: Sampler
}

/** Subjects that are compared with the same floor. */
export interface Group {
  readonly subjects: readonly Subject[]
  readonly floor: readonly FloorPart[]
  /** Recorded operations of each in one round. */
  readonly perRound: number
  readonly rounds: number
  /** What `ratio` compares. Default: times. */
  readonly compare?: 'times' | 'rates'
}

/** Told of each batch that has ended. */
export type OnBatch = (what: string) => void

/** Something that takes turns with others. */
export interface Entry {
  readonly what: string
  readonly sampler: Sampler
}

/**
 * Runs rounds of one batch per entry, so that what else happens on the machine meets all of them. An unrecorded round
 * comes first, in which code is compiled and memory is touched. It stops at an `onBatch` that throws.
 *
 * @returns what was recorded of each entry
 */
export async function inTurns(
  entries: readonly Entry[],
  { perRound, rounds }: Pick<Group, 'perRound' | 'rounds'>,
  onBatch: OnBatch = () => undefined,
): Promise<Summary[]> {
  const recorders = entries.map(() => new Recorder())
  for (const { sampler } of entries) await quietly(sampler, Math.min(perRound, settlingOperations))
  for (let round = 0; round < rounds; round++) {
    for (const [index, { what, sampler }] of entries.entries()) {
      recorders[index]?.add(await quietly(sampler, perRound))
      onBatch(what)
    }
  }
  return recorders.map((recorder) => recorder.summary())
}

/** Measures subjects in turns with their floor. */
export async function measureGroup(group: Group, onBatch?: OnBatch): Promise<Result[]> {
  const { subjects, floor } = group
  const entries = [
    ...subjects.map(({ labels, sampler }) => ({ what: describe(labels), sampler })),
    ...floor.map(({ name, sampler }) => ({ what: name, sampler })),
  ]
  const summaries = await inTurns(entries, group, onBatch)
  const parts = floor.map(({ name }, index) => ({ name, summary: summaries[subjects.length + index] as Summary }))
  const reference = floorOf(parts)
  return subjects.map(({ labels }, index) => compared(labels, summaries[index] as Summary, reference, group.compare))
}

/** Enough for the optimising compiler. */
const settlingOperations = 2_000

/** Batches that `measureGroup` announces. */
export function batchesOf(subjects: number, floors: number, rounds: number): number {
  return (subjects + floors) * rounds
}

async function quietly(sampler: Sampler, count: number): ReturnType<Sampler['run']> {
  const batch = await sampler.run(count)
  // Whatever polls goes on for a while, and would take the core of the next.
  if (sampler.quietMs > 0) await delay(sampler.quietMs)
  return batch
}

export interface Reference {
  readonly name: string
  readonly p50Ns: number
  readonly opsPerSec: number
}

/** Of several parts: what doing one after the other takes. */
export function floorOf(parts: readonly { readonly name: string; readonly summary: Summary }[]): Reference | undefined {
  if (parts.length === 0) return undefined
  const sum = (value: (summary: Summary) => number): number =>
    parts.reduce((total, { summary }) => total + value(summary), 0)
  return {
    name: parts.map(({ name }) => name).join('+'),
    p50Ns: sum(({ p50Ns }) => p50Ns),
    opsPerSec: 1 / sum(({ opsPerSec }) => 1 / opsPerSec),
  }
}

/** @param compare  what the ratio is of */
export function compared<Of extends object>(
  labels: Of,
  summary: Summary,
  floor: Reference | undefined,
  compare: 'times' | 'rates' = 'times',
): Of & Measurement {
  const ratio = floor && (compare === 'times' ? summary.p50Ns / floor.p50Ns : floor.opsPerSec / summary.opsPerSec)
  return {
    ...labels,
    ...summary,
    floor: floor?.name ?? null,
    floorP50Ns: floor?.p50Ns ?? null,
    floorOpsPerSec: floor?.opsPerSec ?? null,
    minusFloorNs: floor ? summary.p50Ns - floor.p50Ns : null,
    ratio: ratio ?? null,
  }
}

export function describe({ transport, mode, kind, function: name, client }: Labels): string {
  return [transport, mode, kind, name, client].filter((part) => part !== null).join(' ')
}
