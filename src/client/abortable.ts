/** Waits that somebody may end sooner. */

/** Node's timers go no further. */
export const maxTimerMs = 2 ** 31 - 1

/** Rejects with the signal's reason when that comes first; the operation goes on for others that wait for it. */
export async function abortable<Value>(promise: Promise<Value>, signal: AbortSignal): Promise<Value> {
  promise.catch(() => undefined) // nobody may be left to see its outcome
  signal.throwIfAborted()
  let abort: (() => void) | undefined
  const aborted = new Promise<never>((_, reject) => {
    // The reason may be anything a caller chose; it is passed on as it is.
    abort = () => reject(signal.reason as Error)
    signal.addEventListener('abort', abort, { once: true })
  })
  try {
    return await Promise.race([promise, aborted])
  } finally {
    if (abort) signal.removeEventListener('abort', abort)
  }
}
