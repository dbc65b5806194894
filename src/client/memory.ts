/**
 * Memory that connections lend for inputs and results, which then are not copied. It outlives a connection that was lost, so
 * that calls may be repeated with it over the next one, which copies their inputs and gives their results other memory:
 * whoever began them over the former may still be writing.
 */
import { ArgumentError } from '../errors.js'
import { translated } from '../native/errors.js'
import type { Session } from './session.js'

const owners = new WeakMap<ArrayBufferLike, Session>()
/** How many buffers of a session are in use, by its callers or in sight of the garbage collector. */
const lent = new WeakMap<Session, number>()
/** Called when a lost session has none any more. */
const unused = new WeakMap<Session, () => void>()
const collected = new FinalizationRegistry<Session>(giveBack)

/** @throws {ArgumentError} · {PayloadError} `ERR_PAYLOAD_TOO_LARGE` */
export function allocateFrom(session: Session, byteLength: number): Uint8Array {
  if (!Number.isSafeInteger(byteLength) || byteLength < 1) {
    throw new ArgumentError(`allocate: byteLength: expected an integer of at least 1, received ${String(byteLength)}`)
  }
  const memory = translated(() => session.connection.allocate(byteLength))
  owners.set(memory.buffer, session)
  lent.set(session, (lent.get(session) ?? 0) + 1)
  collected.register(memory.buffer, session, memory.buffer)
  return memory
}

/**
 * Gives it back to its connection, unless that was closed, and the memory with it. Memory that no connection has lent is
 * `otherwise`'s to refuse.
 */
export function releaseTo(memory: Uint8Array, otherwise: Session | undefined): void {
  const { buffer, byteLength } = memory
  const owner = owners.get(buffer)
  const asked = owner ?? otherwise
  if (asked === undefined || byteLength === 0) return
  translated(() => asked.connection.release(memory))
  if (owner && collected.unregister(buffer)) giveBack(owner)
}

/** Calls back when none of the session's memory is in use: now, or once the last is given back. */
export function whenUnused(session: Session, then: () => void): void {
  if ((lent.get(session) ?? 0) === 0) return then()
  unused.set(session, then)
}

function giveBack(owner: Session): void {
  const left = (lent.get(owner) ?? 1) - 1
  lent.set(owner, left)
  if (left === 0) unused.get(owner)?.()
}

/**
 * `output` if it is for calls over this session; undefined when it is another's, and their results need other memory.
 *
 * @throws {ArgumentError} when it was released
 */
export function writable(session: Session, output: Uint8Array | undefined): Uint8Array | undefined {
  if (output === undefined) return undefined
  const owner = owners.get(output.buffer)
  if (owner === undefined || owner === session) return output
  if (output.byteLength === 0) throw new ArgumentError('invoke: option output: its memory was released')
  return undefined
}
