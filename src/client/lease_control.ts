/** What the holder of a lease asks the host about it, over the process's own connection. */
import type { NativeLeaseReply } from '../native/binding.js'
import { fromNative, translated } from '../native/errors.js'
import { abortable } from './abortable.js'
import { fromJson } from './answers.js'
import type { ParsedLeaseOptions } from './lease_options.js'
import type { LeaseReport } from './lease_report.js'
import type { Session } from './session.js'

/** LeaseOp of native/protocol/frame.h. */
const ops = { take: 1, renew: 2, release: 3, report: 4, fate: 5 } as const
/** LeaseLane of native/protocol/lease_messages.h. */
const lanes = { node: 1, native: 2 } as const
const anyLane = 0
/** For giving back what nobody waits for any more. */
const releaseMs = 30_000

/** Gives back what nobody will use; it expires if that fails. */
export function releaseQuietly(control: LeaseControl): void {
  control.release(releaseMs).catch(() => undefined)
}

/** Answered when the workers are there. Given up, it gives back what comes nevertheless. */
export async function takeLease(session: Session, options: ParsedLeaseOptions): Promise<NativeLeaseReply> {
  const { connection } = session
  const { workers, hotMs, runtime, ttlMs, waitMs, name, signal, timeoutMs } = options
  const request = {
    workers,
    lane: runtime === undefined ? anyLane : lanes[runtime],
    hotMs,
    ttlMs: Math.ceil(ttlMs),
    waitMs: Math.ceil(waitMs),
    ...(name === undefined ? {} : { name }),
  }
  const context = { process: session.info.process }
  const taking = translated(() => connection.lease(ops.take, request, waitMs + timeoutMs), context)
  const id = connection.lastCall
  try {
    return await (signal ? abortable(taking, signal) : taking)
  } catch (error) {
    if (signal?.aborted !== true) throw fromNative(error, context)
    session.cancel(id)
    taking.then(
      ({ lease }) => releaseQuietly(new LeaseControl(session, lease)),
      () => undefined,
    )
    throw error
  }
}

export class LeaseControl {
  readonly lease: bigint
  readonly #session: Session

  constructor(session: Session, lease: bigint) {
    this.#session = session
    this.lease = lease
  }

  /** @returns until it expires from now on, milliseconds */
  async renew(ttlMs: number, timeoutMs: number): Promise<number> {
    return (await this.#ask(ops.renew, { ttlMs: Math.ceil(ttlMs) }, timeoutMs)).ttlMs
  }

  renewSync(ttlMs: number, timeoutMs: number): number {
    return this.#askSync(ops.renew, { ttlMs: Math.ceil(ttlMs) }, timeoutMs).ttlMs
  }

  /** Answered when the workers have left. */
  async release(timeoutMs: number): Promise<LeaseReport> {
    return fromJson((await this.#ask(ops.release, {}, timeoutMs)).text) as LeaseReport
  }

  async report(timeoutMs: number): Promise<LeaseReport> {
    return fromJson((await this.#ask(ops.report, {}, timeoutMs)).text) as LeaseReport
  }

  /** Why the connection to a worker has ended: JSON text of a `Fate`. */
  async fate(worker: number, timeoutMs: number): Promise<string> {
    return (await this.#ask(ops.fate, { worker }, timeoutMs)).text
  }

  fateSync(worker: number, timeoutMs: number): string {
    return this.#askSync(ops.fate, { worker }, timeoutMs).text
  }

  async #ask(op: number, request: object, timeoutMs: number): Promise<NativeLeaseReply> {
    const { connection, info } = this.#session
    try {
      return await connection.lease(op, { lease: this.lease, ...request }, timeoutMs)
    } catch (error) {
      throw fromNative(error, { process: info.process })
    }
  }

  #askSync(op: number, request: object, timeoutMs: number): NativeLeaseReply {
    const { connection, info } = this.#session
    return translated(() => connection.leaseSync(op, { lease: this.lease, ...request }, timeoutMs), {
      process: info.process,
    })
  }
}
