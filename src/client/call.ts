/** One call on one connection: options, abort, deadline. */
import { codecByName, type Codec, type CodecName } from '../codecs.js'
import { ArgumentError } from '../errors.js'
import { fromNative } from '../native/errors.js'
import { checkKnown, checkTimeout } from '../limits.js'
import { writable } from './memory.js'
import { callFlags, type RemoteFunction, type Session } from './session.js'

export interface InvokeOptions {
  /** Aborting cancels the call on the worker, too. The promise rejects with `signal.reason`. */
  readonly signal?: AbortSignal
  /** Milliseconds from now until `ERR_INVOCATION_TIMEOUT`. Default: that of the process (60 s unless set). */
  readonly timeoutMs?: number
  /**
   * The call may run more than once: it is repeated when the worker, the host or the connection dies under it.
   * Default: what the function declares.
   */
  readonly idempotent?: boolean
  /** Instead of what the function declares, for input and result. */
  readonly codec?: CodecName
  /**
   * Memory from `process.allocate` for the result, which then is a view of it, unless it does not fit, or the connection that
   * the memory is of was lost: then it is in memory of its own.
   */
  readonly output?: Uint8Array
}

/** How often an idempotent call whose worker died is repeated: a call that kills its worker would kill all of them. */
export const maxWorkerDeaths = 2
export const noOptions: InvokeOptions = Object.freeze({})

export const invokeOptions: ReadonlySet<string> = new Set(['signal', 'timeoutMs', 'idempotent', 'codec', 'output'])

/** Checked by hand: this runs once per call, and a schema costs more than the call. */
export function checkInvokeOptions(options: InvokeOptions, knownOptions = invokeOptions): void {
  checkKnown('invoke', options, knownOptions)
  const { signal, timeoutMs, idempotent, output } = options
  checkTimeout('invoke', timeoutMs)
  if (signal !== undefined && !(signal instanceof AbortSignal)) {
    throw new ArgumentError('invoke: option signal: expected an AbortSignal')
  }
  if (idempotent !== undefined && typeof idempotent !== 'boolean') {
    throw new ArgumentError(`invoke: option idempotent: expected true or false, received ${String(idempotent)}`)
  }
  if (output !== undefined && !(output instanceof Uint8Array)) {
    throw new ArgumentError('invoke: option output: expected a Uint8Array from allocate()')
  }
}

export function codecsOf(remote: RemoteFunction, options: InvokeOptions): { input: Codec; output: Codec } {
  if (options.codec === undefined) return remote
  const codec = codecByName(options.codec)
  return { input: codec, output: codec }
}

/** Whether the call may be repeated after a death. */
export function isIdempotent(remote: RemoteFunction, options: InvokeOptions): boolean {
  return options.idempotent ?? remote.idempotent
}

export function isWorkerDeath(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ERR_WORKER_CRASHED'
}

/** The function streams and the call does not, or the reverse. */
export function streamMismatch(functionName: string, streaming: boolean): ArgumentError {
  return new ArgumentError(
    streaming
      ? `${functionName} is declared with \`stream: true\`; call it with invokeStream`
      : `${functionName} is not declared with \`stream: true\`; call it with invoke`,
  )
}

/**
 * Sends the call and decodes the result.
 *
 * An abort rejects at once, unless the result goes into memory of the caller: then when the peer can no longer write to it,
 * or at the deadline. The input's bytes are kept alive by native code until the call has ended there.
 */
export async function callOnce(
  session: Session,
  remote: RemoteFunction,
  input: unknown,
  options: InvokeOptions,
  timeoutMs: number,
): Promise<unknown> {
  const codecs = codecsOf(remote, options)
  const bytes = session.encode(remote, codecs.input, input)
  const flags = isIdempotent(remote, options) ? callFlags.idempotent : 0
  try {
    const output = writable(session, options.output)
    const call = session.connection.invoke(remote.index, bytes, output, flags, timeoutMs)
    const reply = options.signal ? await untilAborted(session, call, options.signal, output !== undefined) : await call
    return codecs.output.decode(reply)
  } catch (error) {
    // The reason of an abort is the caller's own and passed on as it is, whatever it looks like.
    throw options.signal?.aborted === true ? error : fromNative(error, session.context(remote.name))
  }
}

/** The result of a call that may be aborted. */
async function untilAborted(
  session: Session,
  call: Promise<Uint8Array>,
  signal: AbortSignal,
  waitForPeer: boolean,
): Promise<Uint8Array> {
  const id = session.connection.lastCall
  const { promise: aborted, reject } = withReject()
  const abort = (): void => {
    session.cancel(id)
    if (!waitForPeer) reject(signal.reason)
  }
  signal.addEventListener('abort', abort, { once: true })
  if (signal.aborted) abort()
  try {
    const reply = await Promise.race([call, aborted])
    signal.throwIfAborted()
    return reply
  } catch (error) {
    call.catch(() => undefined)
    signal.throwIfAborted()
    throw error
  } finally {
    signal.removeEventListener('abort', abort)
  }
}

function withReject(): { promise: Promise<never>; reject: (reason: unknown) => void } {
  let reject!: (reason: unknown) => void
  const promise = new Promise<never>((_, rejectPromise) => (reject = rejectPromise))
  return { promise, reject }
}
