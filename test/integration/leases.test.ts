/** Leases as clients take them: calls over them. */
import { readFileSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { LeaseOptions } from '../../src/client/lease_options.js'
import type { SpreadResult } from '../../src/client/spread.js'
import { ArgumentError, LeaseError } from '../../src/errors.js'
import { clusterForTest, failureOf } from '../support/cluster.js'
import { all, pidOf, processFor, started, take, type Who } from '../support/leases.js'
import { transports, workerPids } from '../support/native.js'

describe.each(transports)('a lease over %s', (transport) => {
  it('reaches workers of its own, which share the state of the process', async () => {
    const process = await processFor(transport)
    const lease = await take(process, { workers: 2, name: 'mine' })
    const own = await workerPids(process, 'node')
    expect(own).toHaveLength(1)
    expect(lease).toMatchObject({ transport, processId: process.id, closed: false, ended: undefined })
    expect(lease.workers).toMatchObject([
      { worker: 0, transport, alive: true },
      { worker: 1, transport, alive: true },
    ])
    for (const worker of [0, 1]) {
      const { pid, processId } = await lease.invoke<Who>('who', null, { worker })
      expect(pid).toBe(pidOf(lease, worker))
      expect(processId).toBe(process.id)
      expect(own).not.toContain(pid)
      expect(lease.invokeSync<Who>('who', null, { worker }).pid).toBe(pid)
    }
    expect(await lease.invoke('increment', 3)).toBe(3)
    expect(await process.invoke('increment', 4)).toBe(7)
    expect(lease.invokeSync('increment', 1)).toBe(8)
    for (const phase of ['allocateNs', 'spawnNs', 'codeNs', 'connectNs'] as const) {
      expect(lease.phases[phase]).toBeGreaterThanOrEqual(0)
    }
  })

  it('takes inputs and gives results of all sizes, awaited and waited for', async () => {
    const lease = await take(await processFor(transport))
    for (const bytes of [0, 1, 64, 4096, 4097, 300_000, 5_000_000]) {
      const input = Buffer.alloc(bytes, `of ${bytes} bytes`)
      expect(Buffer.compare(await lease.invoke('echo', input), input)).toBe(0)
      expect(Buffer.compare(lease.invokeSync('echo', input), input)).toBe(0)
    }
    const many = await Promise.all(Array.from({ length: 500 }, (_, index) => lease.invoke('clone', { index })))
    expect(many).toEqual(Array.from({ length: 500 }, (_, index) => ({ index })))
  })

  it('spreads what is in flight over its workers', async () => {
    const lease = await take(await processFor(transport), { workers: 3 })
    await lease.invoke('echo')
    const calls = Array.from({ length: 12 }, () => lease.invoke('echo'))
    expect(lease.workers.map(({ inFlight }) => inFlight)).toEqual([4, 4, 4])
    await Promise.all(calls)
    expect(lease.workers.map(({ inFlight }) => inFlight)).toEqual([0, 0, 0])
  })

  it('gives memory that its workers use', async () => {
    const lease = await take(await processFor(transport), { workers: 2 })
    const input = lease.allocate(100_000, 1)
    const output = lease.allocate(100_000, 1)
    input.fill(5)
    const result = await lease.invoke('echo', input, { output })
    expect(result).toHaveLength(100_000)
    expect(result.buffer).toBe(output.buffer)
    expect(lease.workers[1]?.calls).toBe(1)
    expect(lease.invokeSync('echo', input, { output, worker: 1 })[99_999]).toBe(5)
    lease.release(input)
    expect(input).toHaveLength(0)
    await lease.close()
    expect(output).toHaveLength(0)
    expect(() => lease.allocate(1)).toThrow(LeaseError)
  })

  it('passes on what functions throw', async () => {
    const lease = await take(await processFor(transport))
    expect(await failureOf(lease.invoke('throwsError'))).toMatchObject({ code: 'ERR_FUNCTION_THREW' })
    expect(() => lease.invokeSync('throwsError')).toThrow(/no such row/)
    expect(await failureOf(lease.invoke('nowhere'))).toMatchObject({ code: 'ERR_FUNCTION_UNKNOWN' })
    expect(() => lease.invokeSync('nowhere')).toThrow(/nowhere/)
    expect(await failureOf(lease.invoke('upper'))).toBeInstanceOf(ArgumentError)
    const late = lease.invoke('sleep', 60_000, { timeoutMs: 50 })
    expect(await failureOf(late)).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
    const reason = new Error('enough')
    const abort = new AbortController()
    const aborted = lease.invoke('sleep', 60_000, { signal: abort.signal })
    abort.abort(reason)
    expect(await failureOf(aborted)).toBe(reason)
    expect(await lease.invoke('add', { a: 1, b: 2 })).toBe(3)
  })

  it('counts what it has used', async () => {
    const process = await processFor(transport)
    const lease = await take(process, { workers: 2, name: 'counted', ttlMs: 60_000 })
    for (let call = 0; call < 10; call++) await lease.invoke('echo', new Uint8Array(1_000), { worker: call % 2 })
    lease.invokeSync('sleep', 30)
    await failureOf(lease.invoke('throwsError'))
    const live = await lease.accounting()
    expect(live).toMatchObject({ name: 'counted', client: globalThis.process.pid, state: 'active', workers: 2 })
    // Workers answer before they count.
    await expect
      .poll(async () => (await process.leases()).leases)
      .toMatchObject([{ lease: Number(lease.id), calls: 12, failures: 1 }])
    const report = await lease.close()
    expect(report).toMatchObject({ state: 'ended', lane: 'node', calls: 12, failures: 1 })
    if (!report) throw new Error('there is no report')
    expect(report.bytesIn).toBeGreaterThanOrEqual(10_000)
    expect(report.bytesOut).toBeGreaterThanOrEqual(10_000)
    expect(report.executionNs).toBeGreaterThan(20e6)
    expect(report.executionNs + report.pollingNs).toBeLessThanOrEqual(report.allocatedNs)
    for (const key of ['calls', 'failures', 'bytesIn', 'bytesOut', 'allocatedNs', 'executionNs'] as const) {
      expect(report.perWorker.reduce((sum, worker) => sum + worker[key], 0)).toBe(report[key])
      expect(report[key]).toBeGreaterThanOrEqual(live[key])
    }
    expect(await lease.close()).toBe(report)
    expect(await lease.accounting()).toEqual(report)
    const { totals, leases, free, capacity } = await process.leases()
    expect({ leases, free, capacity }).toEqual({ leases: [], free: 8, capacity: 8 })
    expect(totals).toMatchObject({ leases: 1, calls: 12, failures: 1, bytesIn: report.bytesIn })
  })
})

describe('many calls', () => {
  it('are spread over workers, in order or with who did them', async () => {
    const lease = await take(await processFor('shm'), { workers: 2 })
    const inputs = Array.from({ length: 100 }, (_, index) => ({ a: index, b: 1 }))
    expect(await all(lease.invokeMany('add', inputs))).toEqual(inputs.map(({ a }) => a + 1))
    const results = await all(lease.invokeMany<number>('add', inputs, { ordered: false, inFlight: 4 }))
    expect(results.toSorted((one, other) => one.index - other.index).map(({ output }) => output)).toEqual(
      inputs.map(({ a }) => a + 1),
    )
    expect(new Set(results.map(({ worker }) => worker))).toEqual(new Set([0, 1]))
    expect(await failureOf(all(lease.invokeMany('throwsError', [new Uint8Array(1)])))).toMatchObject({
      code: 'ERR_FUNCTION_THREW',
    })
  })

  it('are shared with this thread', async () => {
    const lease = await take(await processFor('shm'), { workers: 1 })
    const inputs = Array.from({ length: 40 }, () => 10)
    const local = (): string => {
      const end = performance.now() + 10
      while (performance.now() < end);
      return 'slept'
    }
    const results: SpreadResult<string>[] = await all(
      lease.invokeMany<string>('sleep', inputs, { ordered: false, local }),
    )
    expect(results.map(({ output }) => output)).toEqual(inputs.map(() => 'slept'))
    const mine = results.filter(({ worker }) => worker === 'local').length
    // How many each does depends on what else the machine does.
    expect(mine).toBeGreaterThan(0)
    expect(mine).toBeLessThan(inputs.length)
  })

  it('go on when a worker dies, if they may be made again', async () => {
    const lease = await take(await processFor('tcp'), { workers: 2 })
    const inputs = Array.from({ length: 200 }, (_, index) => ({ a: index, b: 0 }))
    let count = 0
    for await (const sum of lease.invokeMany('add', inputs, { inFlight: 4 })) {
      expect(sum).toBe(count++)
      if (count === 20) process.kill(pidOf(lease, 1), 'SIGKILL')
    }
    expect(count).toBe(200)
  })
})

describe('options of leases', () => {
  it.each([
    { workers: 0 },
    { workers: 1001 },
    { hotMs: -2 },
    { ttlMs: 0 },
    { ttlMs: 'soon' },
    { waitMs: -1 },
    { renew: 1 },
    { runtime: 'python' },
    { name: '' },
    { transport: 'pigeon' },
    { onNotice: 5 },
    { wrong: 1 },
  ])('are checked: %o', async (options) => {
    const process = await started.cluster.process('options')
    expect(await failureOf(process.lease(options as LeaseOptions))).toBeInstanceOf(ArgumentError)
  })

  it('of calls, too', async () => {
    const lease = await take(await started.cluster.process('options'), { workers: 2 })
    for (const worker of [-1, 2, 0.5]) {
      expect(await failureOf(lease.invoke('echo', undefined, { worker }))).toBeInstanceOf(ArgumentError)
      expect(() => lease.invokeSync('echo', undefined, { worker })).toThrow(ArgumentError)
      expect(() => lease.allocate(1, worker)).toThrow(ArgumentError)
    }
    expect(await failureOf(lease.invoke('echo', undefined, { wrong: 1 } as object))).toBeInstanceOf(ArgumentError)
  })

  it('refuse a runtime that the application does not have', async () => {
    const process = await started.cluster.process('options')
    expect(await failureOf(process.lease({ runtime: 'native' }))).toBeInstanceOf(ArgumentError)
  })
})

it('leases of many clients of one process do not meet', async () => {
  const { cluster, directory } = await clusterForTest({ leaseWorkers: 6 })
  await cluster.process('shared')
  const clients = await Promise.all(
    Array.from({ length: 3 }, (_, index) =>
      connect(undefined, { runtimeDir: directory.path, transport: transports[index % 2] ?? 'tcp' }),
    ),
  )
  onTestFinished(async () => {
    for (const client of clients) await client.close()
  })
  const leases = await Promise.all(
    clients.map(async (client) => (await client.process('shared')).lease({ workers: 2, hotMs: 0 })),
  )
  const pids = new Set(leases.flatMap(({ workers }) => workers.map(({ pid }) => pid)))
  expect(pids.size).toBe(6)
  const sums = await Promise.all(
    leases.flatMap((lease) =>
      Array.from({ length: 50 }, (_, index) => lease.invoke<number>('add', { a: index, b: 1 })),
    ),
  )
  expect(sums).toEqual(leases.flatMap(() => Array.from({ length: 50 }, (_, index) => index + 1)))
})

it('a connection keeps nothing of leases that have ended', async () => {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  const windows = (): number => {
    collect()
    return readFileSync('/proc/self/maps', 'utf8').match(/\/memfd:/g)?.length ?? 0
  }
  const process = await processFor('shm')
  const use = async (): Promise<void> => {
    await using lease = await process.lease({ hotMs: 0 })
    await lease.invoke('echo', new Uint8Array(1))
  }
  await use()
  const before = windows()
  for (let count = 0; count < 10; count++) await use()
  // Some turns of the event loop pass before native memory follows.
  await expect.poll(windows).toBeLessThanOrEqual(before)
})
