/** Bounds that hold everywhere, checked without a schema because calls check them. */
import { ArgumentError, PraasError } from './errors.js'

/** Longest time any call may take: 7 days. Nothing waits for ever. */
export const maxTimeoutMs = 7 * 86_400_000
/** Longest time a token is valid: a year. */
export const maxTokenMs = 365 * 86_400_000
/** Longest name of a process, function, lock or state key, in bytes of UTF-8. */
export const maxNameBytes = 255

/** Workers of one process, of both kinds together. */
export const maxWorkers = 1000
/** Workers that run TypeScript. */
export const maxNodeWorkers = 512
/** Workers that the leases of one process have at a time, and that one lease can have. */
export const maxLeaseWorkers = 1000
/** Functions of one process. */
export const maxFunctions = 1024

/** Whether `value` can name something: 1 … 255 bytes of UTF-8 without lone surrogates or NUL. */
export function isName(value: string): boolean {
  const bytes = Buffer.byteLength(value)
  return bytes >= 1 && bytes <= maxNameBytes && !value.includes('\0') && value.isWellFormed()
}

/** @param what  What is named, for the message. @throws {PraasError} `ERR_NAME_INVALID` */
export function checkName(what: string, value: unknown): void {
  if (typeof value === 'string' && isName(value)) return
  const received = typeof value === 'string' ? `${Buffer.byteLength(value)} bytes` : typeof value
  throw new PraasError(
    'ERR_NAME_INVALID',
    `${what} has 1 … ${maxNameBytes} bytes of UTF-8 without NUL; received ${received}`,
  )
}

/** @throws {ArgumentError} unless `value` is an integer of at least 0 */
export function checkOffset(name: string, value: number): number {
  if (Number.isSafeInteger(value) && value >= 0) return value
  throw new ArgumentError(`${name}: expected an integer of at least 0, received ${String(value)}`)
}

/** @throws {ArgumentError} unless `value` is undefined or a time a call can take */
export function checkTimeout(where: string, value: number | undefined): void {
  if (value === undefined || (value > 0 && value <= maxTimeoutMs)) return
  throw new ArgumentError(
    `${where}: option timeoutMs: expected more than 0, at most ${maxTimeoutMs}, received ${String(value)}`,
  )
}

/** @throws {ArgumentError} for an option that is not among the known ones */
export function checkKnown(where: string, options: object, known: ReadonlySet<string>): void {
  for (const name in options) {
    if (!known.has(name)) {
      throw new ArgumentError(`${where}: unknown option "${name}"; known are ${[...known].join(', ')}`)
    }
  }
}
