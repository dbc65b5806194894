/** Leases as clients take them: calls, and how they, their workers and everybody around them end. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Lease } from '../../src/client/lease.js'
import type { LeaseNotice } from '../../src/client/lease_notices.js'
import type { LeaseOptions } from '../../src/client/lease_options.js'
import type { Process } from '../../src/client/process.js'
import type { SpreadResult } from '../../src/client/spread.js'
import { ArgumentError, LeaseError, ProcessError, WorkerError } from '../../src/errors.js'
import { clusterForTest, failureOf, isRunning, startCluster, untilGone, type TestCluster } from '../support/cluster.js'
import { connectBy, transports, workerPids, type Transport } from '../support/native.js'

interface Who {
  readonly pid: number
  readonly processId: string
}

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ workers: 1, leaseWorkers: 8 })
})
afterAll(() => started.close())

/** A process of its own, so that one test's leases are not another's, reached by one transport. */
async function processFor(transport: Transport, options: object = {}): Promise<Process> {
  const id = `leased-${Math.random()}`
  const created = await started.cluster.process(id, options)
  onTestFinished(async () => {
    const left = await started.cluster.processes()
    if (left.some((process) => process.id === id)) await created.stop()
  })
  const cluster = await connectBy(transport, started)
  onTestFinished(() => cluster.close())
  return cluster.process(id, { create: false })
}

/** Workers that sleep: a test machine has few processors. */
async function take(process: Process, options: LeaseOptions = {}): Promise<Lease> {
  const lease = await process.lease({ hotMs: 0, ...options })
  onTestFinished(async () => {
    await lease.close()
  })
  return lease
}

const pidOf = (lease: Lease, worker = 0): number => lease.workers[worker]?.pid ?? 0

function collected(): { readonly notices: LeaseNotice[]; readonly onNotice: (notice: LeaseNotice) => void } {
  const notices: LeaseNotice[] = []
  return { notices, onNotice: (notice) => notices.push(notice) }
}

async function until(notices: readonly LeaseNotice[], event: LeaseNotice['event']): Promise<LeaseNotice> {
  await expect.poll(() => notices.map((notice) => notice.event), { timeout: 30_000 }).toContain(event)
  return notices.find((notice) => notice.event === event) as LeaseNotice
}

async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = []
  for await (const item of items) found.push(item)
  return found
}

function thrownBy(run: () => unknown): Error {
  try {
    run()
  } catch (error) {
    return error as Error
  }
  throw new Error('it did not fail')
}

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

describe.each(transports)('a leased worker that dies, over %s,', (transport) => {
  it('fails its call with how, is replaced, and the lease goes on with the others', async () => {
    const process = await processFor(transport)
    const { notices, onNotice } = collected()
    const lease = await take(process, { workers: 2, onNotice })
    const before = pidOf(lease)
    await lease.invoke('echo', new Uint8Array(1), { worker: 1 })
    const failure = await failureOf(lease.invoke('killed', Buffer.from('SIGKILL'), { worker: 0, timeoutMs: 20_000 }))
    expect(failure).toBeInstanceOf(WorkerError)
    expect(failure).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGKILL' })
    expect((failure as WorkerError).stderr).toContain('about to be killed')
    for (let call = 0; call < 10; call++) expect((await lease.invoke<Who>('who')).pid).not.toBe(before)
    expect(await until(notices, 'workerEnded')).toMatchObject({ worker: 0, exit: { signal: 'SIGKILL' } })
    expect(await until(notices, 'workerReady')).toMatchObject({ worker: 0 })
    expect(lease.workers).toMatchObject([{ alive: true }, { alive: true }])
    expect((await lease.invoke<Who>('who', null, { worker: 0 })).pid).toBe(pidOf(lease))
    expect(pidOf(lease)).not.toBe(before)
    await untilGone(before)
    expect(lease.ended).toBeUndefined()
    const report = await lease.close()
    expect(report?.calls).toBeGreaterThanOrEqual(11)
  })

  it('without options of the call tells how, too', async () => {
    const lease = await take(await processFor(transport))
    await lease.invoke('echo')
    await failureOf(lease.invoke('nowhere'))
    const failure = await failureOf(lease.invoke('exits'))
    expect(failure).toMatchObject({ code: 'ERR_WORKER_CRASHED', exitCode: 3 })
    // The next one waits for the worker that takes the place.
    expect(await lease.invoke('add', { a: 2, b: 2 })).toBe(4)
  })

  it('tells how when it was waited for', async () => {
    const { notices, onNotice } = collected()
    const lease = await take(await processFor(transport), { onNotice })
    lease.invokeSync('echo')
    const failure = thrownBy(() => lease.invokeSync('killed', Buffer.from('SIGSEGV')))
    expect(failure).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGSEGV' })
    expect(thrownBy(() => lease.invokeSync('echo'))).toMatchObject({ code: 'ERR_LEASE_UNAVAILABLE' })
    await until(notices, 'workerReady')
    expect(lease.invokeSync('add', { a: 2, b: 3 })).toBe(5)
  })

  it('is not noticed by calls that may be made again', async () => {
    const lease = await take(await processFor(transport), { workers: 2 })
    // The host may have had it made again, too.
    expect(await lease.invoke('crashesOnce')).toBeGreaterThanOrEqual(2)
    expect(lease.ended).toBeUndefined()
  })

  it('is not noticed by blocking calls that may be made again', async () => {
    const lease = await take(await processFor(transport), { workers: 2 })
    expect(lease.invokeSync('crashesOnce')).toBeGreaterThanOrEqual(2)
  })

  it('between calls is replaced, too', async () => {
    const { notices, onNotice } = collected()
    const lease = await take(await processFor(transport), { onNotice })
    process.kill(pidOf(lease), 'SIGKILL')
    await until(notices, 'workerReady')
    expect(await lease.invoke('add', { a: 1, b: 1 })).toBe(2)
  })
})

describe.each(transports)('the time of a lease over %s', (transport) => {
  it('ends it, with what is in flight, when nobody renews it', async () => {
    const { notices, onNotice } = collected()
    const process = await processFor(transport)
    const lease = await take(process, { ttlMs: 400, renew: false, onNotice })
    const failure = await failureOf(lease.invoke('sleep', 30_000))
    expect(failure).toBeInstanceOf(LeaseError)
    expect(failure.code).toBe('ERR_LEASE_EXPIRED')
    expect(lease.ended).toMatchObject({ code: 'ERR_LEASE_EXPIRED' })
    expect((await failureOf(lease.invoke('echo'))).code).toBe('ERR_LEASE_EXPIRED')
    expect(thrownBy(() => lease.invokeSync('echo'))).toMatchObject({ code: 'ERR_LEASE_EXPIRED' })
    expect(await failureOf(lease.renew())).toMatchObject({ code: 'ERR_LEASE_EXPIRED' })
    expect(await until(notices, 'ended')).toMatchObject({ error: { code: 'ERR_LEASE_EXPIRED' }, report: { calls: 1 } })
    expect(await lease.close()).toMatchObject({ state: 'ended' })
    expect(await process.leases()).toMatchObject({ leases: [], free: 8 })
  })

  it('ends one that is not used, although it renews', async () => {
    const { notices, onNotice } = collected()
    const lease = await take(await processFor(transport), { ttlMs: 200, onNotice })
    expect(await until(notices, 'ended')).toMatchObject({ error: { code: 'ERR_LEASE_EXPIRED' } })
    expect(lease.closed).toBe(true)
  })

  it('ends it even when its function never returns, and the next lease works', async () => {
    const process = await processFor(transport)
    const lease = await take(process, { ttlMs: 400, renew: false })
    const pid = pidOf(lease)
    const failure = await failureOf(lease.invoke('spins'))
    expect(failure.code).toBe('ERR_LEASE_EXPIRED')
    await untilGone(pid)
    const next = await take(process)
    expect(await next.invoke('add', { a: 3, b: 4 })).toBe(7)
  })

  it('goes on while it is used', async () => {
    const lease = await take(await processFor(transport), { ttlMs: 400 })
    const end = performance.now() + 1_600
    while (performance.now() < end) expect(await lease.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(await lease.invoke('sleep', 1_200)).toBe('slept')
    expect(lease.ended).toBeUndefined()
  })

  it('goes on while a program makes nothing but blocking calls', async () => {
    const lease = await take(await processFor(transport), { ttlMs: 400 })
    const end = performance.now() + 1_600
    while (performance.now() < end) lease.invokeSync('echo', new Uint8Array(8))
    expect(lease.invokeSync('add', { a: 1, b: 2 })).toBe(3)
    expect(lease.ended).toBeUndefined()
  })

  it('can be renewed by hand, for longer', async () => {
    const lease = await take(await processFor(transport), { ttlMs: 500, renew: false })
    const first = lease.expiresAt.getTime()
    await lease.renew(60_000)
    expect(lease.expiresAt.getTime() - first).toBeGreaterThan(50_000)
    expect((await lease.accounting()).remainingMs).toBeGreaterThan(50_000)
    expect(await failureOf(lease.renew(0))).toBeInstanceOf(ArgumentError)
  })
})

describe.each(transports)('the end of others, over %s:', (transport) => {
  it('of the process, which takes the lease back with notice', async () => {
    const process = await processFor(transport)
    const { notices, onNotice } = collected()
    const lease = await take(process, { onNotice })
    const running = failureOf(lease.invoke('sleep', 60_000))
    await started.cluster.stop(process.id)
    expect(await until(notices, 'ending')).toMatchObject({ reason: expect.stringMatching(/./) as string })
    expect(await until(notices, 'ended')).toMatchObject({ error: { code: expect.stringMatching(/^ERR_/) as string } })
    expect((await running).code).toMatch(/ERR_LEASE_REVOKED|ERR_PROCESS_DRAINING/)
    await lease.close()
  })

  it('of the host, by which it ends; the next one has the same state', async () => {
    const process = await processFor(transport)
    const { notices, onNotice } = collected()
    const lease = await take(process, { workers: 2, onNotice })
    const pids = lease.workers.map(({ pid }) => pid)
    await lease.invoke('increment', 5)
    const running = failureOf(lease.invoke('sleep', 60_000))
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    globalThis.process.kill(process.connection?.hostPid ?? 0, 'SIGKILL')
    expect(await running).toBeInstanceOf(ProcessError)
    expect((await running).code).toBe('ERR_HOST_LOST')
    expect(await until(notices, 'ended')).toMatchObject({ error: { code: 'ERR_HOST_LOST' }, report: undefined })
    expect(await failureOf(lease.invoke('echo'))).toMatchObject({ code: 'ERR_HOST_LOST' })
    expect(await lease.close()).toBeUndefined()
    for (const pid of pids) await untilGone(pid)
    const next = await take(process)
    expect(await next.invoke('increment', 1)).toBe(6)
  })

  it('of the handle that took it', async () => {
    const process = await processFor(transport)
    const lease = await take(process)
    const running = failureOf(lease.invoke('sleep', 60_000))
    process.close()
    expect((await running).code).toBe('ERR_LEASE_CLOSED')
    expect((await failureOf(lease.invoke('echo'))).code).toBe('ERR_LEASE_CLOSED')
    expect(await lease.close()).toBeUndefined()
  })

  it('of its holder, killed while it calls', async () => {
    const process = await processFor(transport)
    const script = fileURLToPath(new URL('../fixtures/lease_holder.mjs', import.meta.url))
    const holder = spawn(globalThis.process.execPath, [script, started.directory.path, process.id, transport], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = (await once(holder.stdout, 'data')) as [Buffer]
    const pids = JSON.parse(String(line)) as number[]
    expect(await process.leases()).toMatchObject({ leases: [{ name: 'killed', client: holder.pid }], free: 6 })
    holder.kill('SIGKILL')
    await expect.poll(async () => (await process.leases()).free, { timeout: 30_000 }).toBe(8)
    expect(await process.leases()).toMatchObject({ leases: [], totals: { leases: 1 } })
    // Who is not in the middle of something serves the next one.
    const next = await take(process, { workers: 2 })
    expect(await next.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(pids.some(isRunning) || next.workers.length === 2).toBe(true)
  })

  it('of the lease itself, with calls in flight', async () => {
    const process = await processFor(transport)
    const lease = await take(process)
    const running = failureOf(lease.invoke('sleep', 60_000))
    const report = await lease.close()
    expect((await running).code).toBe('ERR_LEASE_CLOSED')
    expect(report).toMatchObject({ state: 'ended' })
    expect(thrownBy(() => lease.invokeSync('echo'))).toMatchObject({ code: 'ERR_LEASE_CLOSED' })
    expect(await failureOf(all(lease.invokeMany('echo', [new Uint8Array(1)])))).toMatchObject({
      code: 'ERR_LEASE_CLOSED',
    })
  })
})

describe('workers that others have', () => {
  it('are waited for until a deadline, in order', async () => {
    const process = await processFor('shm', { leaseWorkers: 2 })
    const first = await take(process, { workers: 2 })
    expect(await failureOf(process.lease({ workers: 1 }))).toMatchObject({ code: 'ERR_LEASE_UNAVAILABLE' })
    expect(await failureOf(process.lease({ workers: 1, waitMs: 50 }))).toBeInstanceOf(LeaseError)
    expect(await failureOf(process.lease({ workers: 3 }))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    const waiting = [take(process, { workers: 1, waitMs: '30 s' }), take(process, { waitMs: 30_000 })]
    await expect.poll(async () => (await process.leases()).waiting).toBe(2)
    await first.close()
    const [second, third] = await Promise.all(waiting)
    expect(await second?.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(await third?.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(second?.phases.allocateNs).toBeGreaterThan(0)
  })

  it('are given up by an abort, and go to the next', async () => {
    const process = await processFor('shm', { leaseWorkers: 1 })
    const first = await take(process)
    const abort = new AbortController()
    const reason = new Error('not any more')
    const given = failureOf(process.lease({ waitMs: 60_000, signal: abort.signal }))
    await expect.poll(async () => (await process.leases()).waiting).toBe(1)
    abort.abort(reason)
    expect(await given).toBe(reason)
    await first.close()
    await expect.poll(async () => (await process.leases()).free, { timeout: 30_000 }).toBe(1)
    expect(await failureOf(process.lease({ signal: abort.signal }))).toBe(reason)
    expect(await (await take(process)).invoke('add', { a: 1, b: 2 })).toBe(3)
  })

  it('are none where the process has none', async () => {
    const process = await processFor('shm', { leaseWorkers: 0 })
    expect(await failureOf(process.lease())).toHaveProperty('code')
    expect(await process.leases()).toMatchObject({ capacity: 0, free: 0, leases: [] })
  })

  it('are given in many leases after one another, and nothing is left of them', async () => {
    const process = await processFor('shm')
    for (let round = 0; round < 20; round++) {
      await using lease = await process.lease({ workers: 2, hotMs: 0 })
      expect(await lease.invoke('add', { a: round, b: 1 })).toBe(round + 1)
    }
    expect(await process.leases()).toMatchObject({ leases: [], free: 8, totals: { leases: 20, calls: 20 } })
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
    expect(mine).toBeGreaterThan(8)
    expect(mine).toBeLessThan(32)
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
