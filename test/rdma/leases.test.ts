/** Leased workers over a device of this machine: their own queue pairs, without the host. */
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { pattern, sizes, transport, usableDevice } from './support.js'

let started: TestCluster
let served: Process

beforeAll(async () => {
  usableDevice()
  started = await startCluster({ transport, workers: 1, graceMs: '60 s' })
  served = await started.cluster.process('leases')
})
afterAll(() => started?.close())

it('take calls of every size', async () => {
  await using lease = await served.lease({ workers: 2, ttlMs: '60 s' })
  expect(lease.workers.map((worker) => worker.transport)).toEqual([transport, transport])
  for (const byteLength of sizes) {
    const input = pattern(byteLength)
    expect(Buffer.from(await lease.invoke('echo', input)).equals(input)).toBe(true)
    expect(Buffer.from(lease.invokeSync('echo', input)).equals(input)).toBe(true)
  }
  const report = await lease.close()
  expect(report).toMatchObject({ calls: 2 * sizes.length, failures: 0 })
})

it('sleep between calls if they are told to', async () => {
  await using lease = await served.lease({ hotMs: 0, ttlMs: '60 s' })
  for (let seed = 0; seed < 10; seed++) {
    const input = pattern(64, seed)
    expect(Buffer.from(await lease.invoke('echo', input)).equals(input)).toBe(true)
  }
})

it('take many calls at a time', async () => {
  await using lease = await served.lease({ ttlMs: '60 s' })
  const inputs = Array.from({ length: 100 }, (_, index) => pattern(index % 10 === 0 ? 100_000 : 64, index))
  const results = await Promise.all(inputs.map((input) => lease.invoke('echo', input)))
  for (const [index, result] of results.entries())
    expect(Buffer.from(result).equals(inputs[index] ?? pattern(0))).toBe(true)
})

it('that die fail their call with how, and are replaced', async () => {
  await using lease = await served.lease({ ttlMs: '60 s' })
  const [worker] = lease.workers
  const call = failureOf(lease.invoke('sleep', 60_000, { codec: 'json' }))
  await vi.waitUntil(async () => (await served.state.get('sleeping')) !== undefined, { timeout: 60_000 })
  process.kill(worker?.pid ?? 0, 'SIGKILL')
  expect(await call).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGKILL' })
  expect(Buffer.from(await lease.invoke('echo', pattern(64), { timeoutMs: 60_000 })).equals(pattern(64))).toBe(true)
})
