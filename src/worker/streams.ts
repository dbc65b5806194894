/** Streams of one invocation: chunks in from the caller, chunks out to it, both with back-pressure. */
import { setTimeout as delay } from 'node:timers/promises'
import { asBytes, describe } from '../codecs.js'
import { codeOf, PraasError } from '../errors.js'
import type { NativeWorker } from '../native/binding.js'
import { translated } from '../native/errors.js'
import { CheckedViews, guardShared } from './views.js'

/** Largest chunk that is handed over at once; native/dispatch/stream_ring.h. */
const maxChunkBytes = 256 * 1024
/** Results of other calls fill the payload memory, and nobody tells a worker when they have gone. */
const memoryRetryMs = 5

/** Tells everything that waits for chunks or room that some may have come. */
export class StreamNotices {
  #waiting: (() => void)[] = []

  /** Resolves at the next notice, or when `signal` aborts. */
  next(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const abort = (): void => reject(signal.reason as Error)
      if (signal.aborted) return abort()
      signal.addEventListener('abort', abort, { once: true })
      this.#waiting.push(() => {
        signal.removeEventListener('abort', abort)
        resolve()
      })
    })
  }

  notify(): void {
    const waiting = this.#waiting
    this.#waiting = []
    for (const wake of waiting) wake()
  }
}

export interface StreamEnds {
  readonly worker: NativeWorker
  readonly handle: bigint
  readonly notices: StreamNotices
  readonly signal: AbortSignal
  readonly checkViews: boolean
}

/** Chunks of the input. Each is valid until the next is taken. */
export async function* inputChunks(ends: StreamEnds): AsyncGenerator<Uint8Array, void, void> {
  const { worker, handle, notices, signal, checkViews } = ends
  const checked = checkViews ? new CheckedViews() : undefined
  try {
    for (;;) {
      signal.throwIfAborted()
      const chunk = translated(() => worker.nextChunk(handle))
      if (chunk === null) return
      if (chunk === undefined) {
        await notices.next(signal)
        continue
      }
      yield checked ? checked.copy(chunk) : guardShared(chunk)
      checked?.end()
    }
  } finally {
    checked?.end()
  }
}

/** Sends everything a handler yields. */
export async function sendChunks(ends: StreamEnds, functionName: string, result: unknown): Promise<void> {
  for await (const chunk of chunksOf(functionName, result)) {
    const bytes = asBytes(chunk)
    if (!bytes) throw notBytes(functionName, `yielded ${describe(chunk)}`)
    for (let sent = 0; sent < bytes.byteLength; sent += maxChunkBytes) {
      await sendChunk(ends, bytes.subarray(sent, sent + maxChunkBytes))
    }
  }
}

async function sendChunk({ worker, handle, notices, signal }: StreamEnds, bytes: Uint8Array): Promise<void> {
  for (;;) {
    signal.throwIfAborted()
    switch (tryToSend(worker, handle, bytes)) {
      case 'sent':
        return
      case 'no room':
        await notices.next(signal)
        break
      case 'no memory':
        await delay(memoryRetryMs, undefined, { signal }).catch(() => undefined)
    }
  }
}

function tryToSend(worker: NativeWorker, handle: bigint, bytes: Uint8Array): 'sent' | 'no room' | 'no memory' {
  try {
    return translated(() => worker.writeChunk(handle, bytes)) ? 'sent' : 'no room'
  } catch (error) {
    if (codeOf(error) === 'ERR_STATE_MEMORY') return 'no memory'
    throw error
  }
}

function chunksOf(functionName: string, result: unknown): AsyncIterable<unknown> | Iterable<unknown> {
  if (result === undefined) return []
  if (result instanceof Uint8Array) return [result]
  if (typeof result === 'object' && result !== null) {
    if (Symbol.asyncIterator in result) return result as AsyncIterable<unknown>
    if (Symbol.iterator in result) return result as Iterable<unknown>
  }
  throw notBytes(functionName, `returned ${describe(result)}`)
}

function notBytes(functionName: string, what: string): PraasError {
  return new PraasError(
    'ERR_FUNCTION_RESULT',
    `streaming function ${functionName} ${what}; it has to yield chunks of bytes`,
  )
}
