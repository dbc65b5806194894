/**
 * Every error this package throws: one class per family, told apart by a literal `code`.
 *
 * Codes are public API. docs/errors.md says what causes each and what to do about it; failures of the operating system keep
 * the name the system gives them (`ENOSPC`, `ECONNREFUSED`, …).
 */

const families = {
  general: [
    'ERR_INTERNAL',
    'ERR_ARGUMENT_INVALID',
    'ERR_NAME_INVALID',
    'ERR_UNSUPPORTED',
    'ERR_ADDON_LOAD',
    'ERR_RUNTIME_DIRECTORY',
  ],
  connection: [
    'ERR_PROTOCOL_VERSION',
    'ERR_PROTOCOL_INVALID',
    'ERR_TOKEN_INVALID',
    'ERR_TOKEN_EXPIRED',
    'ERR_NOT_PERMITTED',
    'ERR_CONNECTION_LOST',
    'ERR_CONNECTION_CLOSED',
    'ERR_CONNECTION_TIMEOUT',
    'ERR_UPGRADE_FAILED',
    'ERR_CONNECTION_REFUSED',
    'ERR_CLUSTER_UNREACHABLE',
    'ERR_CLUSTER_CLOSED',
  ],
  process: [
    'ERR_PROCESS_UNKNOWN',
    'ERR_PROCESS_BUSY',
    'ERR_PROCESS_FAILED',
    'ERR_PROCESS_DRAINING',
    'ERR_PROCESS_CLOSED',
    'ERR_HOST_LOST',
    'ERR_SEGMENT_INVALID',
    'ERR_SEGMENT_STUCK',
  ],
  function: ['ERR_FUNCTION_UNKNOWN', 'ERR_FUNCTION_THREW', 'ERR_FUNCTION_RESULT'],
  invocation: ['ERR_INVOCATION_TIMEOUT', 'ERR_INVOCATION_CANCELLED', 'ERR_INVOCATION_DEADLOCK'],
  worker: ['ERR_WORKER_CRASHED', 'ERR_WORKER_START'],
  lease: ['ERR_LEASE_UNAVAILABLE', 'ERR_LEASE_EXPIRED', 'ERR_LEASE_REVOKED', 'ERR_LEASE_CLOSED'],
  payload: [
    'ERR_PAYLOAD_TOO_LARGE',
    'ERR_PAYLOAD_CORRUPT',
    'ERR_PAYLOAD_CODEC',
    'ERR_BACKPRESSURE',
    'ERR_STREAM_ABORTED',
  ],
  state: [
    'ERR_STATE_NOT_FOUND',
    'ERR_STATE_VERSION',
    'ERR_STATE_TYPE',
    'ERR_STATE_MEMORY',
    'ERR_STATE_CONTENDED',
    'ERR_STATE_RANGE',
    'ERR_STATE_LOCK_TIMEOUT',
    'ERR_STATE_LOCK_LOST',
  ],
  deploy: ['ERR_DEPLOY_FAILED', 'ERR_APP_UNKNOWN'],
} as const

/** The families of errors; each has a class of its own. */
export type ErrorFamily = keyof typeof families
type CodeOf<Family extends ErrorFamily> = (typeof families)[Family][number]

/** Every code of this package. OS failures have the OS's name instead. */
export type ErrorCode = CodeOf<ErrorFamily>

/** Every code with the family it belongs to. */
export const errorCodes: ReadonlyMap<ErrorCode, ErrorFamily> = new Map(
  Object.entries(families).flatMap(([family, codes]) => codes.map((code) => [code, family as ErrorFamily] as const)),
)

export interface PraasErrorOptions {
  readonly cause?: unknown
  /** Negative errno of the OS call that failed, as in Node's own errors. */
  readonly errno?: number | undefined
  /** Name of the OS call that failed. */
  readonly syscall?: string | undefined
}

/** Base of every error of this package. */
export class PraasError<Code extends string = string> extends Error {
  readonly code: Code
  readonly errno?: number
  readonly syscall?: string

  constructor(code: Code, message: string, options: PraasErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.code = code
    if (options.errno !== undefined) this.errno = options.errno
    if (options.syscall !== undefined) this.syscall = options.syscall
  }

  static {
    // On the prototype, so that the first line of `stack`, made before any constructor of ours runs, has it already.
    Object.defineProperty(this.prototype, 'name', {
      configurable: true,
      get(this: PraasError): string {
        return this.constructor.name
      },
    })
  }

  /** What logs and the CLI print in front of the message. */
  override toString(): string {
    return `${this.name} [${this.code}]: ${this.message}`
  }
}

/** A wrong argument or option. The message names it, its bounds and the value received. */
export class ArgumentError extends PraasError<'ERR_ARGUMENT_INVALID'> {
  constructor(message: string, options?: PraasErrorOptions) {
    super('ERR_ARGUMENT_INVALID', message, options)
  }
}

/** The connection to a process or to the control plane. */
export class ConnectionError extends PraasError<CodeOf<'connection'>> {}

/** A cloud process, its host or its segment. */
export class ProcessError extends PraasError<CodeOf<'process'>> {}

/** What a function threw, as the worker reported it. */
export interface RemoteError {
  readonly name: string
  readonly message: string
  readonly stack?: string
  readonly code?: string
}

/**
 * A function that is unknown, threw, or returned something it must not. For `ERR_FUNCTION_THREW`, `remote` is what it
 * threw and `cause` is the same as an Error whose stack shows the lines of the application.
 */
export class FunctionError extends PraasError<CodeOf<'function'>> {
  readonly remote?: RemoteError

  constructor(code: CodeOf<'function'>, message: string, options: PraasErrorOptions & { remote?: RemoteError } = {}) {
    super(code, message, options)
    if (options.remote) this.remote = options.remote
  }
}

/** A call that was not answered: deadline, cancellation, or a synchronous call nobody could serve. */
export class InvocationError extends PraasError<CodeOf<'invocation'>> {}

/** How a worker ended. */
export interface WorkerExit {
  readonly signal?: string
  readonly exitCode?: number
  /** The last lines it wrote to stderr. */
  readonly stderr?: string
}

/** A worker that died while it ran the call, or could not start. */
export class WorkerError extends PraasError<CodeOf<'worker'>> implements WorkerExit {
  readonly signal?: string
  readonly exitCode?: number
  readonly stderr?: string

  constructor(code: CodeOf<'worker'>, message: string, options: PraasErrorOptions & { exit?: WorkerExit } = {}) {
    super(code, message, options)
    const { signal, exitCode, stderr } = options.exit ?? {}
    if (signal !== undefined) this.signal = signal
    if (exitCode !== undefined) this.exitCode = exitCode
    if (stderr !== undefined) this.stderr = stderr
  }
}

/** A lease that is not to be had, or that has ended. */
export class LeaseError extends PraasError<CodeOf<'lease'>> {}

/** Bytes that are too many, damaged, not what the codec expects, or found no room. */
export class PayloadError extends PraasError<CodeOf<'payload'>> {}

/** State of a process: missing keys, versions, types, memory, locks. */
export class StateError extends PraasError<CodeOf<'state'>> {}

/** An application that cannot be bundled, a library that cannot be loaded, or an application that is not known. */
export class DeployError extends PraasError<CodeOf<'deploy'>> {}

/** A failure of the operating system; `code` is its name, e.g. `ENOSPC`. */
export class SystemError extends PraasError {}

type ErrorFactory = (code: never, message: string, options: PraasErrorOptions) => PraasError

const factories: Record<ErrorFamily, ErrorFactory> = {
  general: (code, message, options) =>
    code === 'ERR_ARGUMENT_INVALID' ? new ArgumentError(message, options) : new PraasError(code, message, options),
  connection: (code, message, options) => new ConnectionError(code, message, options),
  process: (code, message, options) => new ProcessError(code, message, options),
  function: (code, message, options) => new FunctionError(code, message, options),
  invocation: (code, message, options) => new InvocationError(code, message, options),
  worker: (code, message, options) => new WorkerError(code, message, options),
  lease: (code, message, options) => new LeaseError(code, message, options),
  payload: (code, message, options) => new PayloadError(code, message, options),
  state: (code, message, options) => new StateError(code, message, options),
  deploy: (code, message, options) => new DeployError(code, message, options),
}

/** The error of a code as its public class: ours by family, everything else as SystemError. */
export function errorFromCode(code: string, message: string, options: PraasErrorOptions = {}): PraasError {
  const family = errorCodes.get(code as ErrorCode)
  return family ? factories[family](code as never, message, options) : new SystemError(code, message, options)
}

/** The `code` of anything thrown, if it has one. */
export function codeOf(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined
  return typeof error.code === 'string' ? error.code : undefined
}

/** The message of anything thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
