/** How many workers of each kind a process gets. */
import type { ProcessOptions } from '../control.js'
import type { Application } from '../deploy/application.js'
import { ArgumentError } from '../errors.js'
import { maxNodeWorkers, maxWorkers } from '../limits.js'

export interface WorkerCounts {
  /** That run TypeScript; 0 when the application has none. */
  readonly workers: number
  /** That run native functions; 0 when the application has none. */
  readonly nativeWorkers: number
}

/** @throws {ArgumentError} for more workers than a process can have */
export function workerCounts(
  { workers = 1, nativeWorkers = workers }: Pick<ProcessOptions, 'workers' | 'nativeWorkers'>,
  { bundle, functions }: Pick<Application, 'bundle' | 'functions'>,
): WorkerCounts {
  const counts = { workers: bundle ? workers : 0, nativeWorkers: functions.length > 0 ? nativeWorkers : 0 }
  if (counts.workers > maxNodeWorkers) {
    throw new ArgumentError(
      `option workers: expected an integer, 1 … ${maxNodeWorkers} for an application in TypeScript, received ${workers}`,
    )
  }
  if (counts.workers + counts.nativeWorkers > maxWorkers) {
    throw new ArgumentError(
      `options workers and nativeWorkers: expected at most ${maxWorkers} together, received ${counts.workers} and ` +
        `${counts.nativeWorkers}; nativeWorkers is as large as workers unless it is given`,
    )
  }
  return counts
}
