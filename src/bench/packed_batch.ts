/** Batches on their way from a function that measured: the elapsed time and those of all operations, nanoseconds. */
import type { Batch } from './sampler.js'

export function packBatch({ elapsedNs, timesNs }: Batch): Uint8Array {
  const packed = new Float64Array(timesNs.length + 1)
  packed[0] = elapsedNs
  packed.set(timesNs, 1)
  return new Uint8Array(packed.buffer)
}

export function unpackBatch(bytes: Uint8Array): Batch {
  // A copy, because what was received need not be aligned, nor stay.
  const packed = new Float64Array(bytes.slice().buffer)
  return { elapsedNs: packed[0] ?? 0, timesNs: packed.subarray(1) }
}
