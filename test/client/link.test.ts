import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ControlClient } from '../../src/client/control_client.js'
import { Link } from '../../src/client/link.js'
import type { ControlPlane, ProcessHandle } from '../../src/control.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'

const options = { transport: 'tcp', windowBytes: 2 ** 22, checksum: false, hotMs: 0, connectTimeoutMs: 30_000 } as const

let started: TestCluster
let handle: ProcessHandle
beforeAll(async () => {
  started = await startCluster()
  await started.cluster.process('p')
  const control = new ControlClient(started.cluster.url, started.directory.token())
  handle = await control.find('p', { timeoutMs: 30_000 })
  await control.close()
})
afterAll(() => started.close())

/** Descriptors of the host, one of which is for each connection. */
const descriptors = (): number => readdirSync(`/proc/${handle.process.pid}/fd`).length

/** To a process that listens at once, at `early`, and whose workers are `ready` once the promise settles. */
function linkTo(ready: () => Promise<void>, early = handle.endpoint): Link {
  const control: Partial<ControlPlane> = {
    ensure: async (_id, _options, { onListening }) => {
      onListening?.(early)
      await ready()
      return handle
    },
  }
  return new Link(control as ControlPlane, { id: 'p', create: {} }, options)
}

it('connects while the workers start', async () => {
  const before = descriptors()
  const link = linkTo(() => expect.poll(descriptors).toBeGreaterThan(before))
  const session = await link.session(30_000)
  expect(session.info.hostPid).toBe(handle.process.pid)
  link.close()
  await expect.poll(descriptors).toBe(before)
})

it('leaves no connection to a process whose workers cannot start', async () => {
  const before = descriptors()
  const link = linkTo(async () => {
    await expect.poll(descriptors).toBeGreaterThan(before)
    throw new Error('they cannot')
  })
  expect((await failureOf(link.session(30_000))).message).toBe('they cannot')
  await expect.poll(descriptors).toBe(before)
})

it('connects again to a process whose host was replaced while its workers started', async () => {
  // One that accepts and is gone.
  const former = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1')
  await once(former, 'listening')
  const { port } = former.address() as AddressInfo
  let met = 0
  former.on('connection', () => ++met)
  const link = linkTo(() => expect.poll(() => met).toBeGreaterThan(0), { ...handle.endpoint, port })
  expect((await link.session(30_000)).info.hostPid).toBe(handle.process.pid)
  link.close()
  former.close()
})
