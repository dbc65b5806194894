/** Runs subjects and their floor in turns. */
import { setTimeout as delay } from 'node:timers/promises'
import { Recorder, type Summary } from './recorder.js'
import type { Labels, Result } from './result.js'
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

/**
 * Runs rounds of one batch per subject and per part of the floor, so that what else happens on the machine meets all of
 * them. An unrecorded round comes first, in which code is compiled and memory is touched.
 */
export async function measureGroup(group: Group, onBatch: OnBatch = () => undefined): Promise<Result[]> {
  const subjects = group.subjects.map((subject) => ({ ...subject, recorder: new Recorder() }))
  const floor = group.floor.map((part) => ({ ...part, recorder: new Recorder() }))
  const entries = [
    ...subjects.map(({ labels, sampler, recorder }) => ({ what: describe(labels), sampler, recorder })),
    ...floor.map(({ name, sampler, recorder }) => ({ what: name, sampler, recorder })),
  ]
  for (const { sampler } of entries) await quietly(sampler, Math.min(group.perRound, settlingOperations))
  for (let round = 0; round < group.rounds; round++) {
    for (const { what, sampler, recorder } of entries) {
      recorder.add(await quietly(sampler, group.perRound))
      onBatch(what)
    }
  }
  const reference = floorOf(floor.map(({ name, recorder }) => ({ name, summary: recorder.summary() })))
  return subjects.map(({ labels, recorder }) => compared(labels, recorder.summary(), reference, group.compare))
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
export function compared(
  labels: Labels,
  summary: Summary,
  floor: Reference | undefined,
  compare: 'times' | 'rates' = 'times',
): Result {
  const ratio = floor && (compare === 'times' ? summary.p50Ns / floor.p50Ns : floor.opsPerSec / summary.opsPerSec)
  return {
    ...labels,
    ...summary,
    floor: floor?.name ?? null,
    floorP50Ns: floor?.p50Ns ?? null,
    floorOpsPerSec: floor?.opsPerSec ?? null,
    ratio: ratio ?? null,
  }
}

export function describe({ transport, mode, kind, function: name, client }: Labels): string {
  return [transport, mode, kind, name, client].filter((part) => part !== null).join(' ')
}
