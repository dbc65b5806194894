/** The end of a worker, a host or a client while calls travel over a device. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, it, onTestFinished, vi } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { startCluster, untilGone, type FixtureApp, type TestCluster } from '../support/cluster.js'
import { pattern, transport, usableDevice } from './support.js'

let started: TestCluster

beforeAll(async () => {
  usableDevice()
  started = await startCluster({ transport, workers: 2 })
})
afterAll(() => started?.close())

/** With calls of all kinds under way: small, large, and one that does not end by itself. */
async function busyProcess(id: string): Promise<{ served: Process; ends: Promise<PromiseSettledResult<unknown>[]> }> {
  const served = await started.cluster.process(id)
  const calls = [
    served.invoke('sleep', 60_000, { codec: 'json' }),
    ...Array.from({ length: 30 }, (_, index) => served.invoke('echo', pattern(index % 3 === 0 ? 1 << 20 : 64, index))),
  ]
  const ends = Promise.allSettled(calls)
  await vi.waitUntil(async () => (await served.state.get('sleeping')) !== undefined, { timeout: 60_000 })
  return { served, ends }
}

/** Of the calls that failed, each once. */
function codesOf(ends: readonly PromiseSettledResult<unknown>[]): string[] {
  const failed = ends.filter((end) => end.status === 'rejected')
  return [...new Set(failed.map(({ reason }) => (reason as { code: string }).code))]
}

async function expectToWork(served: Process): Promise<void> {
  expect(await served.functions<FixtureApp>().add({ a: 1, b: 2 })).toBe(3)
  for (const byteLength of [64, 1 << 20]) {
    expect(Buffer.from(await served.invoke('echo', pattern(byteLength))).equals(pattern(byteLength))).toBe(true)
  }
  expect(served.transport).toBe(transport)
}

it('of all workers fails the calls they ran, and no other', async () => {
  const { served, ends } = await busyProcess('workers')
  for (const { pid } of (await served.describe()).workers) process.kill(pid, 'SIGKILL')
  expect(codesOf(await ends)).toEqual(['ERR_WORKER_CRASHED'])
  await expectToWork(served)
})

it('of the host fails all calls, and the next find its successor and the state', async () => {
  const { served, ends } = await busyProcess('host')
  await served.state.set('kept', Buffer.from('state'))
  const { pid = 0 } = await served.describe()
  process.kill(pid, 'SIGKILL')
  expect(codesOf(await ends)).toEqual(['ERR_HOST_LOST'])
  await untilGone(pid)
  await expectToWork(served)
  expect(Buffer.from((await served.state.get('kept')) ?? []).toString()).toBe('state')
})

it('of a host that stands still, too, is seen while calls wait', async () => {
  const { served, ends } = await busyProcess('stopped')
  const { pid = 0 } = await served.describe()
  process.kill(pid, 'SIGSTOP')
  process.kill(pid, 'SIGKILL')
  expect(codesOf(await ends)).toEqual(['ERR_HOST_LOST'])
  await expectToWork(served)
})

it('of a client leaves others alone, and gives back what it held', async () => {
  const served = await started.cluster.process('client')
  const program = fileURLToPath(new URL('killed_client.mjs', import.meta.url))
  const client = spawn(process.execPath, [program, started.directory.path, 'client', transport], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void client.kill('SIGKILL'))
  const [line] = (await once(client.stdout, 'data')) as [Buffer]
  expect(line.toString()).toBe(`${transport}\n`)
  client.kill('SIGKILL')
  await once(client, 'exit')
  await expectToWork(served)
  // Its lock went with it.
  const lock = await served.state.lock('held by the client', 'write', { timeoutMs: 60_000 })
  await lock.release()
})
