/** Turns what the addon throws into the public classes of src/errors.ts. */
import { constants } from 'node:os'
import {
  codeOf,
  errorFromCode,
  FunctionError,
  messageOf,
  PraasError,
  WorkerError,
  type RemoteError,
  type WorkerExit,
} from '../errors.js'

/** What the call was about, for messages of errors that come from a function or its worker. */
export interface CallContext {
  readonly process?: string
  readonly function?: string
}

/**
 * The public error for something native code threw or rejected with. Anything without a `code` is returned as it is:
 * it did not come from a native call.
 */
export function fromNative(error: unknown, context: CallContext = {}): unknown {
  const translated = translate(error, context)
  // The frames of the translation say nothing.
  if (translated !== error && translated instanceof Error) Error.captureStackTrace(translated, fromNative)
  return translated
}

function translate(error: unknown, context: CallContext): unknown {
  if (error instanceof PraasError) return error
  const code = codeOf(error)
  if (code === undefined) return error
  if (code === 'ERR_FUNCTION_THREW') return functionThrew(messageOf(error), context)
  if (code === 'ERR_WORKER_CRASHED') return workerCrashed(messageOf(error), context)
  const { errno, syscall } = error as { errno?: unknown; syscall?: unknown }
  return errorFromCode(code, messageOf(error), {
    errno: typeof errno === 'number' ? errno : undefined,
    syscall: typeof syscall === 'string' ? syscall : undefined,
  })
}

/** Runs a synchronous native call and translates what it throws. */
export function translated<Result>(call: () => Result, context?: CallContext): Result {
  try {
    return call()
  } catch (error) {
    throw fromNative(error, context)
  }
}

function functionThrew(detail: string, context: CallContext): FunctionError {
  const remote = parseRemoteError(detail)
  const cause = new Error(remote.message)
  cause.name = remote.name
  // The frames of this process say nothing about the failure; those of the application do.
  cause.stack = remote.stack ?? `${remote.name}: ${remote.message}`
  if (remote.code !== undefined) Object.defineProperty(cause, 'code', { value: remote.code, enumerable: true })
  const what = context.function === undefined ? 'the function' : `function ${context.function}`
  return new FunctionError('ERR_FUNCTION_THREW', `${what} threw ${remote.name}: ${remote.message}`, { cause, remote })
}

function parseRemoteError(detail: string): RemoteError {
  const fields = parseObject(detail)
  if (!fields) return { name: 'Error', message: detail }
  return {
    name: textOf(fields['name']) ?? 'Error',
    message: textOf(fields['message']) ?? '',
    ...optional('stack', textOf(fields['stack'])),
    ...optional('code', textOf(fields['code'])),
  }
}

function workerCrashed(detail: string, context: CallContext): WorkerError {
  const fields = parseObject(detail)
  if (!fields) return new WorkerError('ERR_WORKER_CRASHED', detail)
  const signal = signalName(fields['signal'])
  const exitCode = typeof fields['exitCode'] === 'number' && signal === undefined ? fields['exitCode'] : undefined
  const stderr = textOf(fields['stderr'])
  const exit: WorkerExit = {
    ...optional('signal', signal),
    ...optional('exitCode', exitCode),
    ...optional('stderr', stderr),
  }
  const how = signal ? `was killed by ${signal}` : exitCode === undefined ? 'ended' : `exited with code ${exitCode}`
  const where = context.function === undefined ? '' : ` while it ran ${context.function}`
  const tail = stderr?.trim() ? `; the end of its stderr:\n${stderr.trimEnd()}` : ''
  return new WorkerError('ERR_WORKER_CRASHED', `the worker ${how}${where}${tail}`, { exit })
}

function signalName(value: unknown): string | undefined {
  if (typeof value === 'string' && value !== '') return value
  if (typeof value !== 'number' || value <= 0) return undefined
  const [name] = Object.entries(constants.signals).find(([, number]) => number === value) ?? []
  return name ?? `signal ${value}`
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : undefined
  } catch {
    return undefined // an older or foreign peer sent plain text
  }
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined
}

function optional<Key extends string, Value>(key: Key, value: Value | undefined): { [K in Key]?: Value } {
  return value === undefined ? {} : ({ [key]: value } as { [K in Key]: Value })
}
