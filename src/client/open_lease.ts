/** Takes a lease and connects to its workers. */
import { monotonicMs } from '../clock.js'
import type { NativeLeaseReply } from '../native/binding.js'
import { abortable } from './abortable.js'
import { fromJson } from './answers.js'
import { LeaseControl, releaseQuietly, takeLease } from './lease_control.js'
import { Lease } from './lease.js'
import { LeaseHolding } from './lease_holding.js'
import { leaseNotices } from './lease_notices.js'
import { parseLeaseOptions, type LeaseOptions } from './lease_options.js'
import type { LeasePhases } from './lease_report.js'
import { LeasedWorker } from './leased_workers.js'
import type { Link } from './link.js'
import { openSession } from './open_session.js'
import type { Session } from './session.js'

type Connect = (index: number, timeoutMs: number) => Promise<Session>

export async function openLease(link: Link, given: LeaseOptions): Promise<Lease> {
  const options = parseLeaseOptions(given)
  const { signal, timeoutMs, waitMs, transport = link.options.transport } = options
  signal?.throwIfAborted()
  const deadline = monotonicMs() + waitMs + timeoutMs
  const session = await link.session(timeoutMs, signal)
  signal?.throwIfAborted()
  return leaseNotices(session).whileTaking(async () => {
    const askedMs = monotonicMs()
    const reply = await takeLease(session, options)
    const answeredMs = monotonicMs()
    const phases = phasesIn(session, reply)
    const connect: Connect = (leaseWorker, leftMs) =>
      openSession(session.info.process, session.endpoint, { ...link.options, transport }, Math.max(leftMs, 1), {
        leaseKey: reply.key,
        leaseWorker,
      })
    const sessions = await connectAll(session, reply, connect, deadline - answeredMs, signal)
    const connectNs = Math.round((monotonicMs() - answeredMs) * 1e6)
    const holding = new LeaseHolding(session, {
      lease: reply.lease,
      ttlMs: reply.ttlMs,
      // After its phases, by the host's clock; when this thread hears of it is up to this thread.
      takenMs: askedMs + (phases.allocateNs + phases.spawnNs + phases.codeNs) / 1e6,
      renew: options.renew,
      workers: sessions.map((opened, index) => new LeasedWorker(index, reply.pids[index] ?? 0, opened)),
      connect,
      onNotice: options.onNotice,
    })
    return new Lease(holding, { ...phases, connectNs })
  })
}

/** What the host says of them, or no lease. */
function phasesIn(session: Session, { lease, text }: NativeLeaseReply): Omit<LeasePhases, 'connectNs'> {
  try {
    return fromJson(text) as Omit<LeasePhases, 'connectNs'>
  } catch (error) {
    releaseQuietly(new LeaseControl(session, lease))
    throw error
  }
}

/** Connections to all workers, or none and no lease. */
async function connectAll(
  session: Session,
  { lease, pids }: NativeLeaseReply,
  connect: Connect,
  timeoutMs: number,
  signal: AbortSignal | undefined,
): Promise<Session[]> {
  const connecting = pids.map((_, index) => connect(index, timeoutMs))
  const all = Promise.all(connecting)
  try {
    return await (signal ? abortable(all, signal) : all)
  } catch (error) {
    for (const one of connecting) {
      one.then(
        (opened) => opened.close(),
        () => undefined,
      )
    }
    releaseQuietly(new LeaseControl(session, lease))
    throw error
  }
}
