/** The functions that benchmarks call. The library of native ones has `null`, `touch` and `discard`, too. */
import { defineFunction } from '../function/define.js'
import type { Context } from '../function/context.js'
import { packBatch } from './packed_batch.js'
import { awaitingSampler, blockingSampler, warmUpOf } from './sampler.js'
import { answer } from './touch.js'

/** The input as it stands: what it costs to get there and back. */
function untouched(input: Uint8Array): Uint8Array {
  return input
}

/** Reads the whole input and writes as much: what it costs when the bytes are used. */
export function touch(input: Uint8Array, context: Context): Uint8Array {
  return answer(input, context.output(input.byteLength))
}

const nothing = new Uint8Array(0)

/** Looks at nothing and has no result: what it costs to get an input there. */
export function discard(): Uint8Array {
  return nothing
}

export { untouched as null }

export interface NestedRequest {
  readonly call: 'sync' | 'async'
  readonly bytes: number
  readonly count: number
}

/** Calls `null` from here and measures each call. */
export const callNull = defineFunction(
  { input: 'json' },
  async ({ call, bytes, count }: NestedRequest, context): Promise<Uint8Array> => {
    const input = new Uint8Array(bytes)
    const options = { warmUp: warmUpOf(bytes) }
    const sampler =
      call === 'sync'
        ? blockingSampler(() => void context.invokeSync('null', input), options)
        : awaitingSampler(() => context.invoke('null', input), options)
    return packBatch(await sampler.run(count))
  },
)
