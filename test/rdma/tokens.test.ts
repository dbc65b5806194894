/** What a token allows over a device of this machine, where calls and published values go past the host. */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { clientForTest, pattern, transport, usableDevice } from './support.js'

let started: TestCluster
let served: Process

beforeAll(async () => {
  usableDevice()
  started = await startCluster({ transport, listen: '127.0.0.1:0', workers: 1, graceMs: '60 s' })
  served = await started.cluster.process('tokens')
  await served.state.set('shown', pattern(100))
  await served.state.publish('shown')
})
afterAll(() => started?.close())

it('calls and leases without the state', async () => {
  const token = await served.token({ verbs: ['invoke', 'lease'] })
  const cluster = await clientForTest(started.cluster.listenUrl, { token, transport })
  const process = await cluster.process('tokens')
  expect(process.transport).toBe(transport)
  const input = pattern(65_537)
  expect(Buffer.from(await process.invoke('echo', input)).equals(input)).toBe(true)
  await using lease = await process.lease({ ttlMs: '60 s' })
  expect(lease.workers[0]?.transport).toBe(transport)
  expect(Buffer.from(await lease.invoke('echo', input)).equals(input)).toBe(true)
  const refused = { code: 'ERR_NOT_PERMITTED' }
  expect(await failureOf(process.state.read('shown'))).toMatchObject(refused)
  expect(await failureOf(process.state.get('shown'))).toMatchObject(refused)
  expect(await failureOf(process.state.set('shown', input))).toMatchObject(refused)
})

it('reads of published values without writing', async () => {
  const token = await served.token({ verbs: ['invoke', 'state-read'] })
  const cluster = await clientForTest(started.cluster.listenUrl, { token, transport })
  const process = await cluster.process('tokens')
  for (let round = 0; round < 3; round++) {
    expect((await process.state.read('shown'))?.data).toEqual(new Uint8Array(pattern(100)))
  }
  expect(await failureOf(process.state.append('shown', pattern(1)))).toMatchObject({ code: 'ERR_NOT_PERMITTED' })
})
