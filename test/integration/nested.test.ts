import { afterAll, beforeAll, expect, it } from 'vitest'
import { readdirSync, readlinkSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import type { Process } from '../../src/client/process.js'
import type { FunctionError } from '../../src/errors.js'
import { failureOf, startCluster, untilGone, type FixtureApp, type TestCluster } from '../support/cluster.js'

const failed = (): undefined => undefined

/** How many windows of clients, its own or others', an OS process has open. */
function windowsOf(pid: number): number {
  const folder = `/proc/${pid}/fd`
  const paths = readdirSync(folder).map((fd) => readlinkSync(join(folder, fd)))
  return paths.filter((path) => path.includes('praas-window')).length
}

let started: TestCluster
let alone: Process
beforeAll(async () => {
  started = await startCluster()
  alone = await started.cluster.process('alone', { workers: 1, concurrency: 1 })
})
afterAll(() => started.close())

it('one worker serves calls ten deep', async () => {
  expect(await alone.functions<FixtureApp>().countdown(10)).toBe(10)
})

it('several such chains do not block each other', async () => {
  const { countdown } = alone.functions<FixtureApp>()
  expect(await Promise.all(Array.from({ length: 8 }, () => countdown(5)))).toEqual(Array(8).fill(5))
})

it('a synchronous call that nobody can serve fails at once', async () => {
  const failure = (await failureOf(alone.invoke('countdownSync', 1))) as FunctionError
  expect(failure.remote?.code).toBe('ERR_INVOCATION_DEADLOCK')
})

it('a synchronous call is served by another worker', async () => {
  const pair = await started.cluster.process('pair', { workers: 2 })
  await expect.poll(async () => (await pair.describe()).workers.map(({ state }) => state)).toEqual(['ready', 'ready'])
  expect(await pair.invoke('countdownSync', 1)).toBe(1)
  const failure = (await failureOf(pair.invoke('countdownSync', 2))) as FunctionError
  expect(failure.remote?.message).toContain('needs a free worker')
  await pair.stop()
})

it('failures of the called reach the caller as they are', async () => {
  expect(await alone.invoke('callsFailing')).toEqual({ code: 'ERR_FUNCTION_THREW', cause: 'no such row' })
  const failure = (await failureOf(alone.invoke('callsUnknown'))) as FunctionError
  expect(failure.remote?.code).toBe('ERR_FUNCTION_UNKNOWN')
})

it('a function reaches other processes, creating them on first use', async () => {
  const facts = await alone.functions<FixtureApp>().callsPeer('peer')
  expect(facts).toMatchObject({ processId: 'peer', depth: 0 })
  expect((await started.cluster.processes()).map(({ id }) => id)).toContain('peer')
})

it('a worker keeps nothing of its connections to hosts that have died', async () => {
  const process = await started.cluster.process('caller', { workers: 1 })
  const { callsPeer } = process.functions<FixtureApp>()
  const peer = await started.cluster.process('mortal')
  await callsPeer('mortal')
  const worker = (await process.describe()).workers[0]?.pid ?? 0
  const before = windowsOf(worker)
  for (let deaths = 0; deaths < 5; deaths++) {
    const { pid: host = 0 } = await peer.describe()
    globalThis.process.kill(host, 'SIGKILL')
    await untilGone(host)
    // One that had begun before the death was noticed fails.
    await expect.poll(() => callsPeer('mortal').catch(failed)).toMatchObject({ processId: 'mortal' })
  }
  expect(windowsOf(worker)).toBe(before)
  await process.stop()
  await peer.stop()
})

it('a function that could not reach the cluster reaches it later', async () => {
  const process = await started.cluster.process('patient', { workers: 1 })
  const agents = join(started.cluster.runtimeDir ?? '', 'agents')
  const socket = join(agents, readdirSync(agents)[0] ?? '', 'sock')
  renameSync(socket, `${socket}.away`)
  const failure = (await failureOf(process.functions<FixtureApp>().callsPeer('alone'))) as FunctionError
  renameSync(`${socket}.away`, socket)
  expect(failure.remote?.code).toBe('ERR_CLUSTER_UNREACHABLE')
  expect(await process.functions<FixtureApp>().callsPeer('alone')).toMatchObject({ processId: 'alone' })
  await process.stop()
})
