/** What hosts say of leases unasked, brought to the lease it is about. */
import type { PraasError, WorkerExit } from '../errors.js'
import type { NativeLeaseNotice } from '../native/binding.js'
import type { LeaseReport } from './lease_report.js'
import type { Session } from './session.js'

/** What `LeaseOptions.onNotice` is told. */
export type LeaseNotice =
  /** A worker has ended; the lease goes on with the others, and another one will take its place. */
  | { readonly event: 'workerEnded'; readonly worker: number; readonly exit: WorkerExit }
  /** Another worker has taken the place, and the lease is connected to it. */
  | { readonly event: 'workerReady'; readonly worker: number }
  /** The process will take the lease back. */
  | { readonly event: 'ending'; readonly remainingMs: number; readonly reason: string }
  /** The lease has ended: `error` is what calls fail with; the report is absent when the host is gone. */
  | { readonly event: 'ended'; readonly error: PraasError; readonly report: LeaseReport | undefined }

/** LeaseEvent of native/protocol/frame.h. */
export const leaseEvents = { workerEnded: 1, workerReady: 2, ending: 3, ended: 4 } as const

type Listener = (notice: NativeLeaseNotice) => void

/** Of a lease that was just taken, they may come before its holder has seen the answer. */
const maxEarly = 1024

class Notices {
  readonly #listeners = new Map<bigint, Listener>()
  #early: NativeLeaseNotice[] = []
  #taking = 0

  constructor(session: Session) {
    session.connection.onLeaseNotice((notice) => {
      const listener = this.#listeners.get(notice.lease)
      if (listener) listener(notice)
      else if (this.#taking > 0 && this.#early.length < maxEarly) this.#early.push(notice)
    })
  }

  async whileTaking<Result>(take: () => Promise<Result>): Promise<Result> {
    this.#taking++
    try {
      return await take()
    } finally {
      if (--this.#taking === 0) this.#early = []
    }
  }

  listen(lease: bigint, listener: Listener): void {
    this.#listeners.set(lease, listener)
    for (const notice of this.#early) if (notice.lease === lease) listener(notice)
  }

  forget(lease: bigint): void {
    this.#listeners.delete(lease)
  }
}

const known = new WeakMap<Session, Notices>()

/** Of one connection, which tells them to one listener. */
export function leaseNotices(session: Session): Notices {
  let notices = known.get(session)
  if (!notices) known.set(session, (notices = new Notices(session)))
  return notices
}

export type { Notices }
