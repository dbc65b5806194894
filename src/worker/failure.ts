/** What a handler threw, in the form that travels to the caller. */
import { codeOf } from '../errors.js'

/** What an error may take on the wire; longer ones are shortened here, where they are still text and not JSON. */
const maxBytes = 60 * 1024
const maxMessage = 8 * 1024
const maxStack = 32 * 1024
const maxName = 256

/** JSON of `RemoteError`. Anything can be thrown, so everything is read with care. */
export function describeThrown(thrown: unknown): string {
  try {
    if (thrown instanceof Error || isErrorLike(thrown)) {
      const { name, message, stack } = thrown as Error
      const code = codeOf(thrown)
      return describe({
        name: shorten(String(name || 'Error'), maxName),
        message: String(message),
        ...(typeof stack === 'string' ? { stack: withCauses(thrown as Error) } : {}),
        ...(code === undefined ? {} : { code: shorten(code, maxName) }),
      })
    }
    return describe({ name: thrown === null ? 'null' : typeof thrown, message: String(thrown) })
  } catch {
    return JSON.stringify({ name: 'Error', message: 'the function threw a value that cannot be described' })
  }
}

interface Described {
  readonly name: string
  readonly message: string
  readonly stack?: string
  readonly code?: string
}

/** Escapes and characters of several bytes make JSON longer than its text: it is cut until it fits. */
function describe(error: Described): string {
  for (let part = 1; ; part /= 2) {
    const json = JSON.stringify({
      ...error,
      message: shorten(error.message, maxMessage * part),
      ...(error.stack === undefined ? {} : { stack: shorten(error.stack, maxStack * part) }),
    })
    if (Buffer.byteLength(json) <= maxBytes) return json
  }
}

function shorten(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`
}

function isErrorLike(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'message' in value && 'name' in value
}

/** The stack with those of its causes, without the frames of the worker below the application's. */
function withCauses(error: Error, depth = 0): string {
  const own = framesOf(error)
    .split('\n')
    .filter((line) => !line.includes('/dist/worker/') && !line.includes('/src/worker/'))
    .join('\n')
  if (!(error.cause instanceof Error) || depth >= 4) return own
  return `${own}\n  caused by: ${withCauses(error.cause, depth + 1)}`
}

/** A stack begins with the message, which travels by itself: where it is long, its frames are worth more. */
function framesOf({ stack = '', message }: Error): string {
  return message.length > maxMessage ? stack.replace(message, () => shorten(message, maxName)) : stack
}
