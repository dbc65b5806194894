import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { monotonicMs } from '../../src/clock.js'
import { LeaseRenewal, type RenewalOf } from '../../src/client/lease_renewal.js'
import { ConnectionError, LeaseError } from '../../src/errors.js'

const ttlMs = 8_000

interface Fake extends RenewalOf {
  calls: number
  busy: boolean
  readonly asked: number[]
  readonly ends: LeaseError[]
  failure: Error | undefined
}

function fake(): Fake {
  const lease: Fake = {
    calls: 0,
    busy: false,
    asked: [],
    ends: [],
    failure: undefined,
    renewSync: (ttl) => {
      lease.asked.push(ttl)
      if (lease.failure) throw lease.failure
      return ttl
    },
    renew: async (ttl, timeoutMs) => lease.renewSync(ttl, timeoutMs),
    use: () => ({ calls: lease.calls, busy: lease.busy }),
    ended: (error) => lease.ends.push(error),
  }
  return lease
}

describe('the renewal of a lease', () => {
  beforeEach(() => {
    vi.useFakeTimers()
  })
  afterEach(() => {
    vi.useRealTimers()
  })

  it('happens while calls are made, not with each, and ends with them', async () => {
    const lease = fake()
    const renewal = new LeaseRenewal(lease, ttlMs, monotonicMs(), true)
    for (let step = 0; step < 16; step++) {
      lease.calls++
      await vi.advanceTimersByTimeAsync(ttlMs / 8)
    }
    expect(lease.asked.length).toBeGreaterThanOrEqual(4)
    expect(lease.asked.length).toBeLessThanOrEqual(8)
    await vi.advanceTimersByTimeAsync(ttlMs)
    const asked = lease.asked.length
    await vi.advanceTimersByTimeAsync(4 * ttlMs)
    expect(lease.asked).toHaveLength(asked)
    renewal.stop()
  })

  it('happens while a call takes long', async () => {
    const lease = fake()
    const renewal = new LeaseRenewal(lease, ttlMs, monotonicMs(), true)
    lease.calls = 1
    lease.busy = true
    await vi.advanceTimersByTimeAsync(4 * ttlMs)
    expect(lease.asked.length).toBeGreaterThanOrEqual(8)
    renewal.stop()
    await vi.advanceTimersByTimeAsync(4 * ttlMs)
    expect(vi.getTimerCount()).toBe(0)
  })

  it('does not happen by itself when it must not', async () => {
    const lease = fake()
    const renewal = new LeaseRenewal(lease, ttlMs, monotonicMs(), false)
    lease.busy = true
    expect(renewal.dueMs).toBe(Infinity)
    await vi.advanceTimersByTimeAsync(4 * ttlMs)
    expect(lease.asked).toEqual([])
    await renewal.renew()
    expect(lease.asked).toEqual([ttlMs])
    expect(renewal.dueMs).toBe(Infinity)
  })

  it('is due for blocking calls before it is too late', () => {
    const lease = fake()
    const takenMs = monotonicMs()
    const renewal = new LeaseRenewal(lease, ttlMs, takenMs, true)
    expect(renewal.dueMs).toBe(takenMs + ttlMs / 2)
    vi.advanceTimersByTime(0)
    renewal.renewSync()
    expect(renewal.dueMs).toBeGreaterThanOrEqual(takenMs + ttlMs / 2)
    expect(renewal.expiresMs).toBeGreaterThanOrEqual(takenMs + ttlMs)
    lease.failure = new ConnectionError('ERR_CONNECTION_LOST', 'gone')
    renewal.renewSync()
    expect(lease.ends).toEqual([])
    expect(renewal.dueMs).toBeLessThan(monotonicMs() + ttlMs / 2)
    renewal.stop()
    expect(renewal.dueMs).toBe(Infinity)
  })

  it('changes the time to live when asked to', async () => {
    const lease = fake()
    const renewal = new LeaseRenewal(lease, ttlMs, monotonicMs(), true)
    await renewal.renew(2 * ttlMs)
    expect(renewal.expiresMs - monotonicMs()).toBeGreaterThan(1.9 * ttlMs)
    lease.busy = true
    await vi.advanceTimersByTimeAsync(8 * ttlMs)
    expect(new Set(lease.asked)).toEqual(new Set([2 * ttlMs]))
    renewal.stop()
  })

  it('finds out that the lease has ended', async () => {
    const lease = fake()
    const renewal = new LeaseRenewal(lease, ttlMs, monotonicMs(), true)
    lease.busy = true
    lease.failure = new LeaseError('ERR_LEASE_EXPIRED', 'too late')
    await vi.advanceTimersByTimeAsync(ttlMs / 2)
    expect(lease.ends[0]).toBe(lease.failure)
    renewal.stop()
  })
})
