/** What a handler threw, in the form that travels to the caller. */
import { codeOf } from '../errors.js'

const maxStackBytes = 32 * 1024

/** JSON of `RemoteError`. Anything can be thrown, so everything is read with care. */
export function describeThrown(thrown: unknown): string {
  try {
    if (thrown instanceof Error || isErrorLike(thrown)) {
      const { name, message, stack } = thrown as Error
      return JSON.stringify({
        name: String(name || 'Error'),
        message: String(message),
        ...(typeof stack === 'string' ? { stack: withCauses(thrown as Error).slice(0, maxStackBytes) } : {}),
        ...(codeOf(thrown) === undefined ? {} : { code: codeOf(thrown) }),
      })
    }
    return JSON.stringify({ name: thrown === null ? 'null' : typeof thrown, message: String(thrown) })
  } catch {
    return JSON.stringify({ name: 'Error', message: 'the function threw a value that cannot be described' })
  }
}

function isErrorLike(value: unknown): boolean {
  return typeof value === 'object' && value !== null && 'message' in value && 'name' in value
}

/** The stack with those of its causes, without the frames of the worker below the application's. */
function withCauses(error: Error, depth = 0): string {
  const own = (error.stack ?? '')
    .split('\n')
    .filter((line) => !line.includes('/dist/worker/') && !line.includes('/src/worker/'))
    .join('\n')
  if (!(error.cause instanceof Error) || depth >= 4) return own
  return `${own}\n  caused by: ${withCauses(error.cause, depth + 1)}`
}
