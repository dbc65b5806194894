/** Measures operations of the state inside a function, where they are used. */
import Benchmark from 'benchmark'
import { defineFunction } from '../function/define.js'
import type { WorkerState } from '../function/context.js'
import { packBatch } from './packed_batch.js'
import { batchOf, Stopwatch, warmUpOf } from './sampler.js'

export const stateOperations = ['view', 'get', 'set', 'set published', 'append'] as const
export type StateOperation = (typeof stateOperations)[number]

export interface StateRequest {
  readonly operation: StateOperation
  readonly bytes: number
  readonly count: number
}

const key = 'measured'

/** Sets small keys until there are `keys` of them. */
export const fill = defineFunction({ input: 'json', output: 'json' }, (keys: number, { state }): number => {
  const value = new Uint8Array(64)
  for (let index = 0; index < keys; index++) state.set(`key-${index}`, value)
  return keys
})

export const measure = defineFunction(
  { input: 'json' },
  ({ operation, bytes, count }: StateRequest, { state }): Uint8Array => {
    state.delete(key)
    state.set(key, new Uint8Array(bytes))
    if (operation === 'set published') state.publish(key)
    const once = operationOf(operation, bytes, state)
    for (let left = warmUpOf(bytes)(count); left > 0; left--) once(undefined)
    const watch = new Stopwatch(count)
    for (let left = count; left > 0; left--) once(watch)
    const { timesNs } = watch.batch()
    state.unpublish(key)
    state.delete(key)
    return packBatch(batchOf(timesNs))
  },
)

/** Does it once and stops the watch. */
function operationOf(operation: StateOperation, bytes: number, state: WorkerState): (watch?: Stopwatch) => void {
  const value = new Uint8Array(bytes)
  switch (operation) {
    case 'view':
      return (watch) => {
        state.view(key)
        watch?.lap()
      }
    case 'get':
      return (watch) => {
        state.get(key)
        watch?.lap()
      }
    case 'set':
    case 'set published':
      return (watch) => {
        state.set(key, value)
        watch?.lap()
      }
    case 'append':
      return appending(value, state)
  }
}

/** A value grows by this much, and starts anew. */
const longestAppends = 16

function appending(value: Uint8Array, state: WorkerState): (watch?: Stopwatch) => void {
  let appends = 0
  return (watch) => {
    if (++appends > longestAppends) {
      state.set(key, value)
      appends = 1
      watch?.resume()
    }
    state.append(key, value)
    watch?.lap()
  }
}

export interface ElementRequest {
  readonly bytes: number
  readonly seconds: number
}

/** Nanoseconds of reading and writing one element, as each cycle of the benchmark found them. */
export interface ElementTimes {
  readonly shared: readonly number[]
  readonly plain: readonly number[]
}

/** Elements of a shared array and of a plain one, by the same code compiled twice. */
export const measureElements = defineFunction(
  { input: 'json', output: 'json' },
  ({ bytes, seconds }: ElementRequest, { state }): ElementTimes => {
    const length = bytes / Float64Array.BYTES_PER_ELEMENT
    const name = `array-${bytes}`
    const times = {
      shared: measureArray(state.array(name, Float64Array, length), seconds),
      plain: measureArray(new Float64Array(length), seconds),
    }
    state.delete(name)
    return times
  },
)

function measureArray(array: Float64Array, seconds: number): number[] {
  const last = array.length - 1
  let index = 0
  const benchmark = new Benchmark(
    () => {
      index = index === last ? 0 : index + 1
      array[index] = (array[index] ?? 0) + 1
    },
    { maxTime: seconds },
  )
  benchmark.run({ async: false })
  if (benchmark.error !== undefined) throw benchmark.error
  return benchmark.stats.sample.map((second) => second * 1e9)
}
