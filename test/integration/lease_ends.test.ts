/** How leases, their workers and everybody around them end, and what comes after that. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { ArgumentError, LeaseError, ProcessError, WorkerError } from '../../src/errors.js'
import { failureOf, isRunning, untilGone } from '../support/cluster.js'
import { collectGarbage } from '../faults/garbage.js'
import { all, collected, pidOf, processFor, started, take, thrownBy, until, type Who } from '../support/leases.js'
import { transports } from '../support/native.js'

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

  it('leaves its memory to calls that are made again', async () => {
    const lease = await take(await processFor(transport))
    const input = lease.allocate(100_000).fill(7)
    const output = lease.allocate(100_000)
    const result = await lease.invoke('echoAfterCrash', input, { output, timeoutMs: 40_000 })
    expect(Buffer.from(result).equals(Buffer.alloc(100_000, 7))).toBe(true)
    expect(input).toHaveLength(100_000)
    lease.release(output)
    expect(output).toHaveLength(0)
    await lease.close()
    expect(input).toHaveLength(0)
  })

  it('takes its memory back when the last of it is released', async () => {
    const { notices, onNotice } = collected()
    const lease = await take(await processFor(transport), { onNotice })
    const descriptors = (): number => readdirSync('/proc/self/fd').length
    const before = descriptors()
    for (let death = 0; death < 3; death += 1) {
      const memory = [lease.allocate(1000), lease.allocate(1000)]
      notices.length = 0
      process.kill(pidOf(lease), 'SIGKILL')
      await until(notices, 'workerReady')
      for (const each of memory) lease.release(each)
      expect(memory.map((each) => each.length)).toEqual([0, 0])
    }
    await expect.poll(descriptors).toBeLessThanOrEqual(before + 2)
  })

  it('between calls is replaced, too', async () => {
    const { notices, onNotice } = collected()
    const lease = await take(await processFor(transport), { onNotice })
    process.kill(pidOf(lease), 'SIGKILL')
    await until(notices, 'workerReady')
    expect(await lease.invoke('add', { a: 1, b: 1 })).toBe(2)
  })
})

describe.each(transports)('a leased worker that stands still, over %s,', (transport) => {
  it('is found soon after the deadline of its call, although the host has nothing else to look at', async () => {
    const { notices, onNotice } = collected()
    const served = await processFor(transport)
    const lease = await take(served, { ttlMs: 5_000, renew: false, onNotice })
    const call = failureOf(lease.invoke('sleep', 30_000, { timeoutMs: 2_000 }))
    await expect.poll(() => served.state.get('sleeping')).toBeDefined()
    process.kill(pidOf(lease), 'SIGSTOP')
    expect((await call).code).toBe('ERR_INVOCATION_TIMEOUT')
    // And not killed when the lease ends.
    await expect.poll(() => notices[0]?.event).toBe('workerEnded')
  })
})

describe.each(transports)('a host that stands still, over %s,', (transport) => {
  it.each([
    { given: 'their own', options: { timeoutMs: 1_000 } },
    { given: 'that of the process', options: undefined },
  ])('keeps no calls beyond their time when their worker dies: $given', async ({ options }) => {
    const served = await processFor(transport, { defaultTimeoutMs: 1_000 })
    const lease = await take(served)
    await lease.invoke('sleep', 0, { timeoutMs: 30_000 })
    const settled: string[] = []
    const sleep = async (name: string, given?: { timeoutMs: number }): Promise<void> => {
      await failureOf(lease.invoke('sleep', 60_000, given))
      settled.push(name)
    }
    const host = served.connection?.hostPid ?? 0
    process.kill(host, 'SIGSTOP')
    const calls = [sleep('patient', { timeoutMs: 60_000 }), sleep('hurried', options)]
    process.kill(pidOf(lease), 'SIGKILL')
    await Promise.race(calls)
    expect(settled).toEqual(['hurried'])
    process.kill(host, 'SIGCONT')
    await Promise.all(calls)
  })
})

describe.each(transports)('the time of a lease over %s', (transport) => {
  it('ends it, with what is in flight, when nobody renews it', async () => {
    const { notices, onNotice } = collected()
    const process = await processFor(transport)
    const lease = await take(process, { ttlMs: 60_000, renew: false, onNotice })
    const running = failureOf(lease.invoke('sleep', 60_000, { timeoutMs: 60_000 }))
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    await lease.renew(400)
    const failure = await running
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
    const lease = await take(await processFor(transport), { ttlMs: 60_000, onNotice })
    await lease.renew(200)
    expect(await until(notices, 'ended')).toMatchObject({ error: { code: 'ERR_LEASE_EXPIRED' } })
    expect(lease.closed).toBe(true)
  })

  it('ends it even when its function never returns, and the next lease works', async () => {
    const process = await processFor(transport)
    const lease = await take(process, { ttlMs: 60_000, renew: false })
    const pid = pidOf(lease)
    const spinning = failureOf(lease.invoke('spins', undefined, { timeoutMs: 60_000 }))
    await expect.poll(() => process.state.get('spinning')).toBeDefined()
    await lease.renew(400)
    expect((await spinning).code).toBe('ERR_LEASE_EXPIRED')
    await untilGone(pid)
    const next = await take(process)
    expect(await next.invoke('add', { a: 3, b: 4 })).toBe(7)
  })

  it('goes on while it is used', async () => {
    const lease = await take(await processFor(transport), { ttlMs: 3_000 })
    const end = performance.now() + 4_500
    while (performance.now() < end) expect(await lease.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(await lease.invoke('sleep', 4_000)).toBe('slept')
    expect(lease.ended).toBeUndefined()
  })

  it('goes on while a program makes nothing but blocking calls', async () => {
    const lease = await take(await processFor(transport), { ttlMs: 3_000 })
    const end = performance.now() + 4_500
    while (performance.now() < end) lease.invokeSync('echo', new Uint8Array(8))
    expect(lease.invokeSync('add', { a: 1, b: 2 })).toBe(3)
    expect(lease.ended).toBeUndefined()
  })

  it('can be renewed by hand, for longer', async () => {
    const lease = await take(await processFor(transport), { ttlMs: 5_000, renew: false })
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

  it('are given up when they have not started in time, and are for the next', async () => {
    const process = await processFor('shm', { leaseWorkers: 1 })
    expect(await failureOf(process.lease({ timeoutMs: 1 }))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
    expect(await (await take(process, { waitMs: '30 s' })).invoke('add', { a: 1, b: 2 })).toBe(3)
  })

  it('that somebody has given up while they started cost the next only what is left', async () => {
    const process = await processFor('shm', { leaseWorkers: 1 })
    await failureOf(process.lease({ timeoutMs: 20 }))
    await expect.poll(async () => (await process.leases()).free).toBe(1)
    const asked = Date.now()
    const lease = await take(process, { ttlMs: 60_000, renew: false })
    const answered = Date.now()
    const { allocateNs, spawnNs, codeNs } = lease.phases
    expect((allocateNs + spawnNs + codeNs) / 1e6).toBeLessThanOrEqual(answered - asked + 1)
    expect(lease.expiresAt.getTime()).toBeGreaterThanOrEqual(asked + 60_000 - 1)
    expect(lease.expiresAt.getTime()).toBeLessThanOrEqual(answered + 60_000 + 1)
  })

  it('are none where the process has none', async () => {
    const process = await processFor('shm', { leaseWorkers: 0 })
    expect(await failureOf(process.lease())).toHaveProperty('code')
    expect(await process.leases()).toMatchObject({ capacity: 0, free: 0, leases: [] })
  })

  it('end when nobody has wanted them for a while, even if they do not listen', async () => {
    const lease = await take(await processFor('shm'))
    const pid = pidOf(lease)
    await lease.close()
    process.kill(pid, 'SIGSTOP')
    await untilGone(pid)
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

it('a lost connection and those of its lease keep no window, whoever has listened to their ends', async () => {
  const windows = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`).includes('praas-window')
      } catch {
        return false
      }
    }).length
  const before = windows()
  const process = await processFor('shm')
  // A function of its own, of which nothing is left on the stack.
  const loseHost = async (): Promise<void> => {
    const lease = await process.lease({ hotMs: 0, timeoutMs: 20_000 })
    globalThis.process.kill(process.connection?.hostPid ?? 0, 'SIGKILL')
    await failureOf(lease.invoke('sleep', 60_000))
    // By another connection; nobody closes the one that was lost.
    await process.invoke('add', { a: 1, b: 1 }, { timeoutMs: 20_000, idempotent: true })
  }
  for (let round = 0; round < 5; round++) await loseHost()
  // One is open, and one may not be collected yet.
  await expect.poll(() => (collectGarbage(), windows()), { timeout: 20_000 }).toBeLessThanOrEqual(before + 2)
})
