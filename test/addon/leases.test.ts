import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NativeConnection } from '../../src/native/binding.js'
import { fn, invokeSync, rejection, TestHost, thrown } from './support.js'

/** LeaseOp of native/protocol/frame.h. */
const report = 4

describe('requests about leases', () => {
  let host: TestHost
  let connection: NativeConnection
  beforeAll(async () => {
    host = await TestHost.start()
    connection = await host.connect('shm')
  })
  afterAll(() => host.stop())

  it.each([
    [{ workers: 0 }, RangeError, 'workers'],
    [{ workers: 1001 }, RangeError, 'workers'],
    [{ lane: 3 }, RangeError, 'lane'],
    [{ hotMs: -2 }, RangeError, 'hotMs'],
    [{ hotMs: 0.5 }, RangeError, 'hotMs'],
    [{ ttlMs: 0 }, RangeError, 'ttlMs'],
    [{ ttlMs: 366 * 86_400_000 }, RangeError, 'ttlMs'],
    [{ waitMs: -1 }, RangeError, 'waitMs'],
    [{ name: 5 }, TypeError, 'name'],
    [{ name: 'ä'.repeat(128) }, RangeError, 'name'],
    [{ lease: 1 }, TypeError, 'lease'],
    [{ worker: 1000 }, RangeError, 'worker'],
  ])('name the wrong argument in %o', (request, type, name) => {
    for (const ask of ['lease', 'leaseSync'] as const) {
      const error = thrown(() => void connection[ask](report, request as object, 1_000))
      expect(error).toBeInstanceOf(type)
      expect(error.message).toContain(name)
    }
  })

  it('about a lease that is not there fail with the reason, awaited and waited for', async () => {
    expect(await rejection(connection.lease(report, { lease: 99n }, 5_000))).toHaveProperty('code', 'ERR_LEASE_CLOSED')
    expect(thrown(() => connection.leaseSync(report, { lease: 99n }, 5_000))).toHaveProperty('code', 'ERR_LEASE_CLOSED')
    expect(thrown(() => connection.leaseSync.call({} as never, report, {}, 1))).toBeInstanceOf(TypeError)
  })

  it('do not answer with a worker for a key that no lease has', async () => {
    const key = '0'.repeat(32)
    const failure = await rejection(host.connect('tcp', { leaseKey: key, leaseWorker: 0 }))
    expect(failure).toHaveProperty('code', 'ERR_LEASE_CLOSED')
  })

  it('takes a function for notices only, and none after close', async () => {
    const own = await host.connect('tcp')
    expect(thrown(() => own.onLeaseNotice(5 as never))).toBeInstanceOf(TypeError)
    own.onLeaseNotice(() => undefined)
    own.close()
    expect(thrown(() => own.onLeaseNotice(() => undefined))).toHaveProperty('code', 'ERR_CONNECTION_CLOSED')
  })

  it('come beside the time of the last synchronous call', () => {
    const before = Number(process.hrtime.bigint()) / 1e6
    expect(connection.calledMs).toHaveLength(1)
    invokeSync(connection, fn(connection, 'echo'), new Uint8Array(8), undefined, 0, 5_000)
    const after = Number(process.hrtime.bigint()) / 1e6
    expect(connection.calledMs[0]).toBeGreaterThan(before - 20)
    expect(connection.calledMs[0]).toBeLessThan(after + 1)
  })
})
