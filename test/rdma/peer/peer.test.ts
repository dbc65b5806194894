/** Calls to a process on another machine: the second guest of `scripts/test-rdma --stage peer`, which runs serve.mjs. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import type { Cluster } from '../../../src/client/cluster.js'
import { connect } from '../../../src/client/connect.js'
import type { Process } from '../../../src/client/process.js'
import { failureOf, type FixtureApp } from '../../support/cluster.js'
import { clientForTest, pattern, sizes, transport } from '../support.js'

let served: { readonly url: string; readonly token: string }
let cluster: Cluster
let far: Process

beforeAll(async () => {
  const told = join(process.env['RDMA_VM_SHARE'] ?? '', 'served.json')
  await vi.waitUntil(() => existsSync(told), { timeout: 100_000 })
  served = JSON.parse(readFileSync(told, 'utf8')) as typeof served
  cluster = await connect(served.url, { token: served.token, transport, timeoutMs: 30_000 })
  far = await cluster.process('far', { create: false })
})
afterAll(() => cluster?.close())

it('is another machine', () => {
  expect(new URL(served.url).hostname).toBe(process.env['RDMA_VM_PEER_IP'])
  expect(far.transport).toBe(transport)
})

it('is reached by the fastest way there is without being asked for it', async () => {
  const client = await clientForTest(served.url, { token: served.token, timeoutMs: 30_000 })
  expect((await client.process('far', { create: false })).transport).toBe('verbs')
})

it.each(sizes)('carries %d bytes there and back', async (byteLength) => {
  const input = pattern(byteLength)
  expect(Buffer.from(await far.invoke('echo', input)).equals(input)).toBe(true)
})

it('has many calls in flight', async () => {
  const calls = Array.from({ length: 64 }, (_, index) => far.invoke('echo', pattern(index * 97, index)))
  for (const [index, result] of (await Promise.all(calls)).entries()) {
    expect(Buffer.from(result).equals(pattern(index * 97, index)), `call ${index}`).toBe(true)
  }
})

it('keeps state and streams on the same connection', async () => {
  await far.state.set('from afar', pattern(100_000))
  expect(Buffer.from((await far.state.get('from afar')) ?? []).equals(pattern(100_000))).toBe(true)
  const chunks: Uint8Array[] = []
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let block = 0; block < 8; block++) yield pattern(65_536, block)
  }
  for await (const chunk of far.invokeStream('relay', source())) chunks.push(Buffer.from(chunk))
  const expected = Buffer.concat(Array.from({ length: 8 }, (_, block) => pattern(65_536, block)))
  expect(Buffer.concat(chunks).equals(expected)).toBe(true)
})

it('tells what a function throws, and goes on', async () => {
  const failure = await failureOf(far.invoke('throwsError'))
  expect(failure).toMatchObject({ code: 'ERR_FUNCTION_THREW', remote: { name: 'RangeError', code: 'E_ROW' } })
  expect(await far.functions<FixtureApp>().add({ a: 1, b: 2 })).toBe(3)
})

it('tells of a worker that is killed, and calls its successor', async () => {
  expect(await failureOf(far.invoke('killed'))).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGKILL' })
  expect(await far.functions<FixtureApp>().add({ a: 2, b: 2 })).toBe(4)
})

it('tells of a host that is killed, and calls its successor with the state of before', async () => {
  await far.state.set('kept', Buffer.from('state'))
  const running = far.invoke('sleep', 60_000)
  await vi.waitUntil(async () => (await far.state.get('sleeping')) !== undefined, { timeout: 30_000 })
  const lost = failureOf(running)
  await failureOf(far.invoke('killsHost'))
  expect((await lost).code).toBe('ERR_HOST_LOST')
  expect(await far.functions<FixtureApp>().add({ a: 3, b: 2 })).toBe(5)
  expect(far.transport).toBe(transport)
  expect(Buffer.from((await far.state.get('kept')) ?? []).toString()).toBe('state')
})

it('serves several clients at a time', async () => {
  const options = { token: served.token, transport, timeoutMs: 30_000 } as const
  const clients = await Promise.all(Array.from({ length: 4 }, () => clientForTest(served.url, options)))
  const calls = clients.map(async (client, index) => {
    const process = await client.process('far', { create: false })
    for (let round = 0; round < 5; round++) {
      const input = pattern(10_000, index * 10 + round)
      expect(Buffer.from(await process.invoke('echo', input)).equals(input)).toBe(true)
    }
  })
  await Promise.all(calls)
})
