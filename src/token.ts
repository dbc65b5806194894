/**
 * Capability tokens of data connections: what its holder may ask of one process, and until when, signed with the key of that
 * process. native/protocol/token.h is the other side; docs/security.md says what they are for.
 */
import { createHmac, timingSafeEqual } from 'node:crypto'
import { ConnectionError } from './errors.js'
import { isName } from './limits.js'

/** What a token can allow; the bits of native/protocol/token.h, in order. */
export const tokenVerbs = ['invoke', 'state-read', 'state-write', 'lease', 'admin'] as const

/**
 * `invoke`: calls and streams · `state-read`, `state-write`: values and locks of the state · `lease`: leases, whose workers
 * are called by `invoke` · `admin`: statistics, logs, draining, and the end of the process.
 */
export type TokenVerb = (typeof tokenVerbs)[number]

export interface Token {
  readonly process: string
  /** At least one. */
  readonly verbs: readonly TokenVerb[]
  /** Milliseconds since the epoch; from then on it opens no connection. */
  readonly expiresMs: number
  /** Connections end when it expires; else they stay until their client ends them. */
  readonly endsConnections: boolean
}

const version = 1
const headBytes = 12
const macBytes = 32

/** @param key  Of the process, base64url */
export function mintToken(key: string, { process, verbs, expiresMs, endsConnections }: Token): string {
  const head = Buffer.alloc(headBytes)
  head[0] = version
  head[1] = tokenVerbs.reduce((bits, verb, index) => (verbs.includes(verb) ? bits | (1 << index) : bits), 0)
  head[2] = endsConnections ? 1 : 0
  head.writeBigUInt64LE(BigInt(Math.floor(expiresMs)), 4)
  const signed = Buffer.concat([head, Buffer.from(process)])
  return Buffer.concat([signed, macOf(key, signed)]).toString('base64url')
}

/**
 * What a token says, if it is one.
 *
 * @param keyOf  The key of a process, base64url, if there is such a process
 * @throws {ConnectionError} `ERR_TOKEN_INVALID` · `ERR_TOKEN_EXPIRED`
 */
export function openToken(text: string, keyOf: (process: string) => string | undefined): Token {
  const bytes = Buffer.from(text, 'base64url')
  const signed = bytes.subarray(0, -macBytes)
  const process = signed.toString('utf8', headBytes)
  const key = bytes.toString('base64url') === text && isName(process) ? keyOf(process) : undefined
  if (key === undefined || !timingSafeEqual(bytes.subarray(-macBytes), macOf(key, signed))) {
    throw new ConnectionError(
      'ERR_TOKEN_INVALID',
      'the token is neither that of this cluster nor of a process here; set PRAAS_TOKEN, or run as its user',
    )
  }
  const [signedVersion, bits = 0, flags = 0] = signed
  if (bits === 0) throw new ConnectionError('ERR_TOKEN_INVALID', 'the token allows nothing')
  if (signedVersion !== version || bits >= 1 << tokenVerbs.length || flags > 1 || signed[3] !== 0) {
    throw new ConnectionError('ERR_TOKEN_INVALID', 'the token was made by another version')
  }
  const expiresMs = Number(signed.readBigUInt64LE(4))
  if (expiresMs <= Date.now()) {
    throw new ConnectionError('ERR_TOKEN_EXPIRED', 'the time of the token is over; get another one')
  }
  const verbs = tokenVerbs.filter((_, index) => (bits & (1 << index)) !== 0)
  return { process, verbs, expiresMs, endsConnections: flags === 1 }
}

function macOf(key: string, signed: Uint8Array): Buffer {
  return createHmac('sha256', Buffer.from(key, 'base64url')).update(signed).digest()
}
