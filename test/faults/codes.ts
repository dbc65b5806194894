/** Which errors may come of what, by docs/errors.md. Anything else is a violation. */
import { codeOf } from '../../src/errors.js'

/** Why an operation of the campaign is aborted. */
export class Aborted extends Error {
  readonly code = 'aborted'
}

/** The host or the connection has gone, or cannot be had in time. */
const lost = ['ERR_HOST_LOST', 'ERR_CONNECTION_LOST', 'ERR_CONNECTION_TIMEOUT'] as const
/** This client closes its connection while others use it. */
const closed = ['ERR_CONNECTION_CLOSED', 'ERR_PROCESS_CLOSED', 'ERR_CLUSTER_CLOSED'] as const
/** Somebody holds what others need and is stopped. */
const held = ['ERR_SEGMENT_STUCK', 'ERR_STATE_CONTENDED'] as const

/** Nobody serves the process: its agent was killed, and the next one is not as far yet. */
const absent = ['ERR_PROCESS_DRAINING', 'ERR_CLUSTER_UNREACHABLE', 'ERR_PROCESS_UNKNOWN'] as const
/** The same for a function, which would create the process that it calls. */
const absentPeer = [...absent, 'ERR_PROCESS_BUSY', 'ERR_APP_UNKNOWN'] as const
const call = [...lost, 'aborted', 'ERR_INVOCATION_TIMEOUT', 'ERR_BACKPRESSURE', 'ERR_WORKER_CRASHED'] as const

export const expected = {
  connect: [...lost, 'ERR_PROCESS_CLOSED'],
  state: [...lost, ...held, 'aborted', 'ERR_INVOCATION_TIMEOUT', 'ERR_BACKPRESSURE'],
  stateWrite: [
    ...lost,
    ...held,
    'aborted',
    'ERR_INVOCATION_TIMEOUT',
    'ERR_BACKPRESSURE',
    'ERR_STATE_MEMORY',
    'ERR_STATE_VERSION',
  ],
  call,
  /** Revoked: its process was stopped, which the holder may hear when it is there again. */
  lease: ['ERR_LEASE_EXPIRED', 'ERR_LEASE_CLOSED', 'ERR_LEASE_UNAVAILABLE', 'ERR_LEASE_REVOKED'],
  takeLease: [
    ...lost,
    'aborted',
    'ERR_LEASE_UNAVAILABLE',
    'ERR_LEASE_EXPIRED',
    'ERR_LEASE_CLOSED',
    'ERR_LEASE_REVOKED',
    'ERR_INVOCATION_TIMEOUT',
    'ERR_WORKER_START',
    'ERR_WORKER_CRASHED',
  ],
  lock: [...lost, ...held, 'aborted', 'ERR_INVOCATION_TIMEOUT', 'ERR_STATE_LOCK_TIMEOUT'],
  release: [...lost, ...held, 'ERR_STATE_LOCK_LOST', 'ERR_INVOCATION_TIMEOUT'],
  closed,
  absent,
  absentPeer,
  /** What a function of the campaign throws because its call to another process has failed. */
  peer: [...call, ...absentPeer, 'ERR_INVOCATION_CANCELLED', 'ABORT_ERR'],
  /** What a function of the campaign throws because its operation on state or locks has failed. */
  thrown: [
    ...held,
    'ERR_INVOCATION_TIMEOUT',
    'ERR_INVOCATION_CANCELLED',
    'ERR_STATE_LOCK_TIMEOUT',
    'ERR_STATE_LOCK_LOST',
  ],
  /** What a function of the campaign throws because a call of its own has failed. */
  nested: [
    'ERR_WORKER_CRASHED',
    'ERR_INVOCATION_TIMEOUT',
    'ERR_INVOCATION_CANCELLED',
    'ERR_INVOCATION_DEADLOCK',
    'ERR_BACKPRESSURE',
  ],
} as const

/** Of an error; of one that a function threw, that of its own error. */
export function codeIn(error: unknown): string {
  return codeOf(error) ?? `no code: ${String(error)}`
}

export function thrownCode(error: unknown): string {
  const { remote } = error as { remote?: { code?: string; message: string } }
  return remote?.code ?? /^ERR_\w+/.exec(remote?.message ?? '')?.[0] ?? remote?.message ?? 'no remote error'
}
