import { describe, expect, it } from 'vitest'
import { workerCounts } from '../../src/agent/worker_counts.js'
import type { Application } from '../../src/deploy/application.js'
import { ArgumentError } from '../../src/errors.js'

const bundle = {} as NonNullable<Application['bundle']>
const functions = [{} as Application['functions'][number]]
const typescript = { bundle, functions: [] }
const native = { bundle: undefined, functions }
const mixed = { bundle, functions }

describe('workers of a process', () => {
  it.each([
    [typescript, {}, 1, 0],
    [typescript, { workers: 512, nativeWorkers: 1000 }, 512, 0],
    [native, {}, 0, 1],
    [native, { workers: 1000 }, 0, 1000],
    [native, { workers: 4, nativeWorkers: 2 }, 0, 2],
    [mixed, {}, 1, 1],
    [mixed, { workers: 3 }, 3, 3],
    [mixed, { workers: 500 }, 500, 500],
    [mixed, { workers: 512, nativeWorkers: 488 }, 512, 488],
    [mixed, { nativeWorkers: 999 }, 1, 999],
  ])('are of the kinds that the application has functions for: %#', (app, options, workers, nativeWorkers) => {
    expect(workerCounts(options, app)).toEqual({ workers, nativeWorkers })
  })

  it.each([
    [typescript, { workers: 513 }, 'option workers: expected an integer, 1 … 512 for an application in TypeScript'],
    [mixed, { workers: 513, nativeWorkers: 1 }, 'received 513'],
    [mixed, { workers: 501 }, 'expected at most 1000 together, received 501 and 501'],
    [mixed, { workers: 512, nativeWorkers: 489 }, 'received 512 and 489'],
  ])('are bounded: %#', (app, options, message) => {
    expect(() => workerCounts(options, app)).toThrow(ArgumentError)
    expect(() => workerCounts(options, app)).toThrow(message)
  })
})
