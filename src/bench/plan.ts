/** Subjects and floors that are opened when their turn comes, and closed after it. */
import { closeFloor, openFloor, type FloorSpec } from './floors.js'
import type { Pinning } from './pinning.js'
import type { Progress } from './progress.js'
import type { Labels, Result } from './result.js'
import { batchesOf, measureGroup, type Subject } from './runner.js'
import type { Sampler } from './sampler.js'

export interface PlannedSubject {
  readonly labels: Labels
  readonly open: () => Promise<Sampler>
}

/** Subjects that are measured in turns with one floor. */
export interface Plan {
  readonly subjects: readonly PlannedSubject[]
  readonly floors: readonly FloorSpec[]
  /** The size all of this is about. */
  readonly bytes: number
  readonly perRound: number
  readonly rounds: number
  readonly compare?: 'times' | 'rates'
  readonly pinning?: Pinning | undefined
}

/** Steps of progress a plan takes. */
export function stepsOf({ subjects, floors, rounds }: Plan): number {
  return batchesOf(subjects.length, floors.length, rounds)
}

export async function runPlan(plan: Plan, progress: Progress): Promise<Result[]> {
  const { floors, bytes, perRound, rounds, compare, pinning } = plan
  const subjects: Subject[] = []
  const floor = await openFloor(floors, bytes, pinning)
  try {
    for (const { labels, open } of plan.subjects) subjects.push({ labels, sampler: await open() })
    const group = { subjects, floor, perRound, rounds, ...(compare ? { compare } : {}) }
    return await measureGroup(group, (what) => progress.step(what))
  } finally {
    for (const { sampler } of subjects) await sampler[Symbol.asyncDispose]()
    await closeFloor(floor)
  }
}

export async function runPlans(plans: readonly Plan[], progress: Progress): Promise<Result[]> {
  const results: Result[] = []
  for (const plan of plans) results.push(...(await runPlan(plan, progress)))
  return results
}
