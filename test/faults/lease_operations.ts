/** Taking leases, and what becomes of them. Calls go over them wherever a lane has one; see `Lane.target`. */
import { expected } from './codes.js'
import type { Lane } from './lane.js'
import type { ServedProcess } from './plan.js'
import { Violation } from './violation.js'

export async function takeLease(lane: Lane, process: ServedProcess): Promise<void> {
  if (lane.held) await endLease(lane)
  const { session, random } = lane
  const runtime = random.pick((['node', 'native'] as const).filter((kind) => process[kind]))
  const renew = random.chance(0.5)
  const options = {
    workers: random.integer(1, 2),
    hotMs: random.pick([0, 0, 1, 5]),
    ttlMs: random.chance(0.5) ? random.integer(100, 800) : random.integer(2_000, 5_000),
    waitMs: random.chance(0.5) ? 0 : random.integer(1, 500),
    timeoutMs: 8_000,
  }
  const signal = lane.signal(0.1)
  const transport = random.chance(0.7) ? {} : { transport: random.pick(session.task.transports) }
  const { value } = await session.attempt(
    {
      ...{ lane: lane.index, kind: 'lease', process: process.id, timeoutMs: options.waitMs + options.timeoutMs },
      expected: expected.takeLease,
    },
    () => session.handle(process.id).lease({ ...options, runtime, renew, ...transport, ...(signal ? { signal } : {}) }),
  )
  if (value) lane.held = { lease: value, process, lane: runtime, renew }
}

/** Gives it back, unless it is left to expire. */
export async function endLease(lane: Lane, { forget = lane.random.chance(0.2) } = {}): Promise<void> {
  const { held, session } = lane
  lane.held = undefined
  if (!held || forget) return
  await session.attempt(
    {
      ...{ lane: lane.index, kind: 'lease close', process: held.process.id, timeoutMs: 30_000 },
      expected: [...expected.state, ...expected.lease],
    },
    () => held.lease.close(),
  )
}

export async function renewLease(lane: Lane): Promise<void> {
  const { held, session } = lane
  if (!held) return
  const ttlMs = lane.random.integer(200, 3_000)
  await session.attempt(
    {
      ...{ lane: lane.index, kind: 'lease renew', process: held.process.id, timeoutMs: 30_000 },
      expected: [...expected.state, ...expected.lease],
    },
    () => held.lease.renew(ttlMs),
  )
}

/** A lease that nobody renews is over by now. */
export function checkExpiry({ held, session }: Lane): void {
  if (!held || held.lease.closed) return
  const overMs = Date.now() - held.lease.expiresAt.getTime()
  if (!held.renew && overMs > session.task.allowanceMs) {
    throw new Violation(
      'leases end in time',
      `lease ${held.lease.id} of ${held.process.id} should have ended ${overMs} ms ago`,
    )
  }
}
