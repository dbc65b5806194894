/** What a payload costs: read once into its final place, sent once from where it lies. The counters of all participants tell. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import { startCluster, type TestCluster } from '../support/cluster.js'

const payloadBytes = 1 << 20
const calls = 16

let started: TestCluster
beforeAll(async () => {
  // Checking views costs copies.
  started = await startCluster({ workers: 1, checkViews: false })
  await started.cluster.process('copies')
})
afterAll(() => started.close())

interface Moved {
  readonly bytesIn: number
  readonly bytesOut: number
  readonly stagedBytes: number
  readonly copiedBytes: number
}

interface Participant extends Moved {
  readonly role: 'host' | 'worker'
  readonly running: number
}

/**
 * Sums over the participants of each role, as `praas inspect` shows them, when no worker runs anything and all has been
 * counted: workers count what they have answered.
 */
async function moved(process: Process): Promise<Record<Participant['role'], Moved>> {
  let participants: readonly Participant[] = []
  const settled = async (): Promise<boolean> => {
    const before = JSON.stringify(participants.filter(({ role }) => role === 'worker'))
    ;({ participants } = (await process.statistics()) as { participants: readonly Participant[] })
    const workers = participants.filter(({ role }) => role === 'worker')
    return workers.every(({ running }) => running === 0) && JSON.stringify(workers) === before
  }
  await expect.poll(settled).toBe(true)
  const sums = (role: Participant['role']): Moved => {
    const sum = (name: keyof Moved): number =>
      participants.filter((participant) => participant.role === role).reduce((total, each) => total + each[name], 0)
    return {
      bytesIn: sum('bytesIn'),
      bytesOut: sum('bytesOut'),
      stagedBytes: sum('stagedBytes'),
      copiedBytes: sum('copiedBytes'),
    }
  }
  return { host: sums('host'), worker: sums('worker') }
}

/** What `work` added to the counters. */
async function movedBy(process: Process, work: () => Promise<void>): Promise<Record<Participant['role'], Moved>> {
  const before = await moved(process)
  await work()
  const after = await moved(process)
  const difference = (role: Participant['role']): Moved => ({
    bytesIn: after[role].bytesIn - before[role].bytesIn,
    bytesOut: after[role].bytesOut - before[role].bytesOut,
    stagedBytes: after[role].stagedBytes - before[role].stagedBytes,
    copiedBytes: after[role].copiedBytes - before[role].copiedBytes,
  })
  return { host: difference('host'), worker: difference('worker') }
}

async function processOver(transport: 'shm' | 'tcp'): Promise<Process> {
  const cluster = await connect(undefined, { runtimeDir: started.directory.path, transport })
  onTestFinished(() => cluster.close())
  const process = await cluster.process('copies', { create: false })
  // The sizes of results are learned from the first one.
  expect((await process.invoke('echo', new Uint8Array(payloadBytes))).byteLength).toBe(payloadBytes)
  expect(process.transport).toBe(transport)
  return process
}

describe('a large payload', () => {
  it('is read into its place and sent from it over tcp', async () => {
    const process = await processOver('tcp')
    const input = new Uint8Array(payloadBytes).fill(3)
    const { host, worker } = await movedBy(process, async () => {
      for (let call = 0; call < calls; ++call) await process.invoke('echo', input)
    })
    expect(host.bytesIn).toBeGreaterThanOrEqual(calls * payloadBytes)
    expect(host.bytesOut).toBeGreaterThanOrEqual(calls * payloadBytes)
    // Only what came along with the header.
    expect(host.stagedBytes).toBeLessThan(calls * 64 * 1024)
    expect(host.copiedBytes).toBe(0)
    expect(worker).toEqual({
      bytesIn: calls * payloadBytes,
      bytesOut: calls * payloadBytes,
      stagedBytes: 0,
      copiedBytes: 0,
    })
  })

  it('becomes an ArrayBuffer of its own over tcp, many at a time, however calls end', async () => {
    const process = await processOver('tcp')
    const bytesOf = (call: number): number => (1 << 16) + call * 50_000
    const outcomes = await Promise.allSettled(
      Array.from({ length: 24 }, async (_, call) => {
        const input = new Uint8Array(bytesOf(call)).fill(call)
        const abort = new AbortController()
        const reply = process.invoke('echo', input, { signal: abort.signal })
        if (call % 4 === 3) setTimeout(() => abort.abort(new Error('given up')), call % 8)
        return reply
      }),
    )
    const blocking = process.invokeSync('echo', new Uint8Array(bytesOf(24)).fill(24))
    const answered = [...outcomes, { status: 'fulfilled', value: blocking } as const]
    for (const [call, outcome] of answered.entries()) {
      if (outcome.status === 'rejected') {
        expect(call % 4).toBe(3)
        continue
      }
      const result = outcome.value
      expect(result.byteLength).toBe(bytesOf(call))
      expect(result.every((byte) => byte === call)).toBe(true)
      // The caller's: nothing else lies in it, and it can be given to another thread.
      expect(result.buffer.byteLength).toBe(result.byteLength)
      expect(structuredClone(result, { transfer: [result.buffer as ArrayBuffer] }).byteLength).toBeGreaterThan(0)
    }
  })

  it('stays where it is over shared memory', async () => {
    const process = await processOver('shm')
    const input = process.allocate(payloadBytes).fill(5)
    const { host, worker } = await movedBy(process, async () => {
      for (let call = 0; call < calls; ++call) expect((await process.invoke('echo', input))[payloadBytes - 1]).toBe(5)
    })
    // The host's socket carried the questions of this test, and none of the payload.
    expect(host.bytesIn + host.bytesOut).toBeLessThan(payloadBytes)
    expect(host.copiedBytes).toBe(0)
    expect(worker).toEqual({
      bytesIn: calls * payloadBytes,
      bytesOut: calls * payloadBytes,
      stagedBytes: 0,
      copiedBytes: 0,
    })
    process.release(input)
  })

  it('is built in the memory of its receiver over shared memory', async () => {
    const process = await processOver('shm')
    const size = Buffer.from(String(payloadBytes))
    await process.invoke('filled', size)
    const { host, worker } = await movedBy(process, async () => {
      for (let call = 0; call < calls; ++call) {
        expect((await process.invoke('filled', size)).byteLength).toBe(payloadBytes)
      }
    })
    expect(host.copiedBytes).toBe(0)
    expect(worker).toMatchObject({ bytesOut: calls * payloadBytes, stagedBytes: 0, copiedBytes: 0 })
  })
})
