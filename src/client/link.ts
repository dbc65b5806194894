/** Keeps a client connected to its process across the deaths of hosts and connections. */
import { setTimeout as delay } from 'node:timers/promises'
import type { ControlPlane, Endpoint, ProcessHandle, ProcessOptions } from '../control.js'
import { codeOf, ConnectionError, messageOf, ProcessError } from '../errors.js'
import { abortable } from './abortable.js'
import { FormerSessions } from './former_sessions.js'
import { openSession, type LinkOptions } from './open_session.js'
import type { Session } from './session.js'

export type { LinkOptions } from './open_session.js'

export interface LinkTarget {
  readonly id: string
  /** Undefined: the process has to be there. */
  readonly create: ProcessOptions | undefined
}

/** Means that the connection or the host is gone, and that connecting again may help. */
const lostCodes = new Set([
  'ERR_CONNECTION_LOST',
  'ERR_CONNECTION_CLOSED',
  'ERR_CONNECTION_TIMEOUT',
  'ERR_HOST_LOST',
  'ECONNREFUSED',
  'ECONNRESET',
  'EPIPE',
  'ETIMEDOUT',
])

export function isLost(error: unknown): boolean {
  return lostCodes.has(codeOf(error) ?? '')
}

function isRefused(error: unknown): boolean {
  return codeOf(error) === 'ERR_CONNECTION_REFUSED'
}

/** A host that is being replaced is lost for a moment, and one that has too many connections may have fewer soon. */
function mayPass(error: unknown): boolean {
  return isLost(error) || isRefused(error)
}

/** An attempt to connect, and when that gives up. */
interface Opening {
  readonly session: Promise<Session>
  readonly deadline: number
}

export class Link {
  readonly options: LinkOptions
  readonly #control: ControlPlane
  readonly #target: LinkTarget
  readonly #former = new FormerSessions()
  #session: Session | undefined
  #opening: Opening | undefined
  #closed = false

  constructor(control: ControlPlane, target: LinkTarget, options: LinkOptions) {
    this.#control = control
    this.#target = target
    this.options = options
  }

  get closed(): boolean {
    return this.#closed
  }

  /** The session if it is open. Never connects. */
  get current(): Session | undefined {
    return this.#session?.closed === false ? this.#session : undefined
  }

  /** Of the present connection, or of the last. */
  get transport(): string {
    return this.#session?.way.transport ?? 'none'
  }

  /**
   * The open session, connecting first when there is none. All that wait at a time share one attempt, but not its deadline.
   *
   * @throws {ConnectionError} `ERR_CONNECTION_TIMEOUT` after `timeoutMs`
   */
  async session(timeoutMs: number, signal?: AbortSignal): Promise<Session> {
    const deadline = performance.now() + timeoutMs
    for (;;) {
      this.#throwIfClosed()
      signal?.throwIfAborted()
      const current = this.current
      if (current) return current
      const opening = (this.#opening ??= this.#begin(deadline))
      const session = opening.deadline <= deadline ? opening.session : this.#within(opening.session, timeoutMs)
      try {
        return await (signal ? abortable(session, signal) : session)
      } catch (error) {
        // Who began the attempt had less time.
        const over = mayPass(error) && opening.deadline < deadline
        if (!over || performance.now() >= deadline) throw error
      }
    }
  }

  #begin(deadline: number): Opening {
    const session = this.#open(deadline).finally(() => (this.#opening = undefined))
    return { session, deadline }
  }

  /** What others wait for longer. */
  async #within(session: Promise<Session>, timeoutMs: number): Promise<Session> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => {
        const text = `there was no connection to process ${this.#target.id} within ${Math.round(timeoutMs)} ms`
        reject(new ConnectionError('ERR_CONNECTION_TIMEOUT', text))
      }, timeoutMs)
    })
    try {
      return await Promise.race([session, late])
    } finally {
      clearTimeout(timer)
    }
  }

  close(): void {
    this.#closed = true
    this.#session?.close()
    this.#former.close()
  }

  async #open(deadline: number): Promise<Session> {
    let pauseMs = 10
    let refusal: unknown
    for (;;) {
      let early: Promise<Session> | undefined
      let handle: ProcessHandle
      try {
        handle = await this.#locate(Math.max(deadline - performance.now(), 1), (endpoint) => {
          // While its workers start. What comes of it is seen below, if it is needed then.
          early ??= openSession(this.#target.id, endpoint, this.options, Math.max(deadline - performance.now(), 1))
          early.catch(() => undefined)
        })
        this.#throwIfClosed()
      } catch (error) {
        early?.then(
          (session) => session.close(),
          () => undefined,
        )
        throw error
      }
      try {
        // The host that was met early may have been replaced meanwhile.
        const met = await early?.then(
          (session) => {
            if (!session.closed) return session
            session.close()
            return undefined
          },
          () => undefined,
        )
        const leftMs = Math.max(deadline - performance.now(), 1)
        const session = met ?? (await openSession(this.#target.id, handle.endpoint, this.options, leftMs))
        if (this.#closed) session.close()
        this.#throwIfClosed()
        if (this.#session) this.#former.add(this.#session)
        this.#session = session
        return session
      } catch (error) {
        if (isRefused(error)) refusal = error
        if (!mayPass(error) || performance.now() + pauseMs >= deadline) {
          // What the host has said tells more than that there was no time for another attempt.
          throw this.#explain(mayPass(error) ? (refusal ?? error) : error, handle.endpoint)
        }
      }
      await delay(pauseMs)
      pauseMs = Math.min(pauseMs * 2, 250)
    }
  }

  #locate(timeoutMs: number, onListening: (endpoint: Endpoint) => void): Promise<ProcessHandle> {
    const { id, create } = this.#target
    const wait = { timeoutMs, onListening }
    return create ? this.#control.ensure(id, create, wait) : this.#control.find(id, wait)
  }

  #explain(error: unknown, endpoint: Endpoint): unknown {
    if (!isLost(error)) return error
    return new ConnectionError(
      codeOf(error) === 'ERR_CONNECTION_TIMEOUT' ? 'ERR_CONNECTION_TIMEOUT' : 'ERR_CONNECTION_LOST',
      `cannot connect to process ${this.#target.id} at ${endpoint.host}:${endpoint.port}: ${messageOf(error)}`,
      { cause: error },
    )
  }

  #throwIfClosed(): void {
    if (this.#closed)
      throw new ProcessError('ERR_PROCESS_CLOSED', `the handle of process ${this.#target.id} was closed`)
  }
}
