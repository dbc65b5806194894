/**
 * What operations of the state cost inside a function, beside copying as many bytes; and what reading it costs a client,
 * asking the host and one-sided.
 */
import type { Process } from '../../client/process.js'
import { apps, BenchCluster, pinServer } from '../bench_cluster.js'
import { unpackBatch } from '../packed_batch.js'
import type { Pinning } from '../pinning.js'
import { runPlans, stepsOf, type Plan } from '../plan.js'
import type { Progress } from '../progress.js'
import { summaryOf } from '../recorder.js'
import { perRound, type Repetitions } from '../repetitions.js'
import type { Labels, Measured, Result, Transport } from '../result.js'
import { compared, floorOf } from '../runner.js'
import type { FloorSpec } from '../floors.js'
import { awaitingSampler, batchMs, sampler, warmUpOf, type Sampler } from '../sampler.js'
import type { ElementRequest, ElementTimes, StateOperation, StateRequest } from '../state_functions.js'

export interface StateOptions extends Repetitions {
  /** Of values and arrays; multiples of 8. */
  readonly sizes: readonly number[]
  /** Keys in the state beside the one that is used. */
  readonly keys: readonly number[]
  /** Of the worker, with which `memcpy` takes turns on its core. */
  readonly pinning: Pinning | undefined
  /** For which an array's elements are measured in each round, seconds. */
  readonly elementSeconds: number
}

const operations: readonly StateOperation[] = ['view', 'get', 'set', 'set published', 'append']
const reads = ['get', 'read'] as const
const transports: readonly Transport[] = ['shm', 'tcp']

export async function stateSuite(options: StateOptions, progress: Progress): Promise<Measured> {
  // Nothing waits for anybody: the function that measures is called once per batch.
  await using bench = await BenchCluster.start('warm', { memory: '4GiB', publications: '4GiB' })
  await bench.deploy('state')
  const results: Result[] = []
  for (const keys of options.keys) {
    const served = await bench.cluster.process(`keys-${keys}`, { app: apps.state })
    await served.invoke('fill', keys)
    await pinServer(served, options.pinning)
    const plans = options.sizes.map((bytes) => planOf(served, bytes, keys, options))
    const readPlans = await readPlansOf(bench, served, keys, options)
    progress.expect(
      [...plans, ...readPlans].reduce((steps, plan) => steps + stepsOf(plan), 0) +
        options.sizes.length * options.rounds,
    )
    results.push(...(await runPlans([...plans, ...readPlans], progress)))
    for (const bytes of options.sizes) results.push(await measureElements(served, bytes, keys, options, progress))
    await served.stop()
  }
  return { results, quantities: [] }
}

function planOf(served: Process, bytes: number, keys: number, options: StateOptions): Plan {
  return {
    subjects: operations.map((operation) => ({
      labels: labelsOf(operation, bytes, keys),
      open: async () =>
        sampler({}, async (count) =>
          unpackBatch(
            await served.invoke('measure', { operation, bytes, count } satisfies StateRequest, { timeoutMs: batchMs }),
          ),
        ),
    })),
    floors: [{ name: 'memcpy', bytes }],
    ...{ bytes, perRound: perRound(options, bytes), rounds: options.rounds },
    pinning: options.pinning && { ...options.pinning, client: options.pinning.worker },
  }
}

/** A client that asks the host for a value, and one that reads it where it is published. Nobody changes it meanwhile. */
async function readPlansOf(bench: BenchCluster, served: Process, keys: number, options: StateOptions): Promise<Plan[]> {
  const plans: Plan[] = []
  for (const transport of transports) {
    const client = await (await bench.connect(transport)).process(served.id)
    for (const bytes of options.sizes) {
      const key = `read-${bytes}`
      plans.push({
        subjects: reads.map((operation) => ({
          labels: { ...labelsOf(operation, bytes, keys), transport, client: `await ${operation}` },
          open: async () => {
            await client.state.set(key, new Uint8Array(bytes))
            await client.state.publish(key)
            return readSampler(client, operation, key, bytes)
          },
        })),
        floors: [floorOfRead(transport, bytes)],
        ...{ bytes, perRound: perRound(options, bytes), rounds: options.rounds, pinning: options.pinning },
      })
    }
  }
  return plans
}

function readSampler({ state }: Process, operation: (typeof reads)[number], key: string, bytes: number): Sampler {
  return awaitingSampler(() => state[operation](key), { warmUp: warmUpOf(bytes) })
}

/** Over shared memory a one-sided read is a copy. Over TCP there is one round trip: its floor carries the bytes both ways. */
function floorOfRead(transport: Transport, bytes: number): FloorSpec {
  return { name: transport === 'shm' ? 'memcpy' : 'tcp', bytes }
}

/** One element takes nanoseconds, which only many in a row can tell: each sample is the mean of such a row. */
async function measureElements(
  served: Process,
  bytes: number,
  keys: number,
  { rounds, elementSeconds }: StateOptions,
  progress: Progress,
): Promise<Result> {
  const request: ElementRequest = { bytes, seconds: elementSeconds }
  const [shared, plain]: [number[], number[]] = [[], []]
  for (let round = 0; round < rounds; round++) {
    const times = await served.invoke<ElementTimes>('measureElements', request)
    shared.push(...times.shared)
    plain.push(...times.plain)
    progress.step('array[i]')
  }
  const floor = floorOf([{ name: 'Float64Array', summary: summaryOf(plain) }])
  return compared(labelsOf('array[i]', bytes, keys), summaryOf(shared), floor)
}

function labelsOf(operation: string, bytes: number, keys: number): Labels {
  return {
    ...({
      suite: 'state',
      transport: null,
      path: null,
      mode: null,
      kind: 'ts',
      function: operation,
      call: null,
    } as const),
    ...{ client: 'in the function', bytes, concurrency: 1, keys },
  }
}
