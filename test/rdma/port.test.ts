/** A port that goes down under a connection, and comes back. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { startCluster, type FixtureApp, type TestCluster } from '../support/cluster.js'
import { clientForTest, pattern, transport, usableDevice } from './support.js'

let started: TestCluster
let served: Process

beforeAll(async () => {
  usableDevice()
  started = await startCluster({ transport, workers: 2 })
  served = await started.cluster.process('port')
})
afterAll(() => started?.close())

/** Only a guest's network interface is nobody else's. */
const why = process.env['RDMA_VM'] === '1' ? undefined : 'not in a guest of scripts/rdma-vm'
if (why !== undefined) console.log(`what a port does that goes down is not tested: ${why}`)

function setInterface(state: 'up' | 'down'): void {
  const name = readFileSync('/sys/class/infiniband/rxe0/parent', 'utf8').trim()
  execFileSync('ip', ['link', 'set', name, state])
}

it.skipIf(why !== undefined)('leaves the connection on TCP, and idempotent calls do not notice', async () => {
  const app = served.functions<FixtureApp>()
  expect(await app.add({ a: 1, b: 1 })).toBe(2)
  const running = Promise.allSettled([
    served.invoke('sleep', 60_000, { codec: 'json' }),
    ...Array.from({ length: 20 }, (_, index) => served.invoke('echo', pattern(1 << 18, index))),
    ...Array.from({ length: 20 }, (_, index) => app.add({ a: index, b: index })),
  ])
  await vi.waitUntil(async () => (await served.state.get('sleeping')) !== undefined, { timeout: 60_000 })
  onTestFinished(() => setInterface('up'))
  setInterface('down')
  const [sleeping, ...others] = await running
  expect(sleeping).toMatchObject({ status: 'rejected', reason: { code: 'ERR_CONNECTION_LOST' } })
  const failed = others.flatMap((end) => (end.status === 'rejected' ? [(end.reason as { code: string }).code] : []))
  expect(failed.filter((code) => code !== 'ERR_CONNECTION_LOST')).toEqual([])
  for (const [index, end] of others.slice(20).entries()) expect(end).toMatchObject({ value: 2 * index })

  const input = pattern(100_000)
  expect(Buffer.from(await served.invoke('echo', input)).equals(input)).toBe(true)
  expect(served.connection?.transport).toBe('tcp')
  // Whichever was seen first, here or by the host: that the port is down, or what could not be sent.
  expect(served.connection?.reason).toMatch(/RDMA device \w+, port \d+\b.*: /)
})

it.skipIf(why !== undefined)('is taken again by the next connection', async () => {
  const take = async (): Promise<string> => {
    const client = await clientForTest(undefined, { runtimeDir: started.directory.path, transport })
    return (await client.process('port', { create: false })).transport
  }
  await expect.poll(() => take().catch((error: Error) => error.message), { timeout: 60_000 }).toBe(transport)
})
