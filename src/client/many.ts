/** Many calls of one function, a bounded number at a time. */
import { setMaxListeners } from 'node:events'
import { ArgumentError } from '../errors.js'
import { checkInvokeOptions, invokeOptions, type InvokeOptions } from './call.js'
import { Source } from './source.js'

export interface ManyOptions extends Omit<InvokeOptions, 'output'> {
  /** Calls at a time, 1 … 65,536. Default: 32. */
  readonly inFlight?: number
  /** Results in the order of the inputs. Default: true. */
  readonly ordered?: boolean
}

export interface ManyResult<Output> {
  /** Which input it belongs to, from 0. */
  readonly index: number
  readonly output: Output
}

type Invoke = (input: unknown, options: InvokeOptions) => Promise<unknown>

interface Settled {
  readonly index: number
  readonly output?: unknown
  readonly error?: { readonly reason: unknown }
}

const knownOptions = new Set([...invokeOptions, 'inFlight', 'ordered'])

export function checkManyOptions(options: ManyOptions): void {
  checkInvokeOptions(options, knownOptions)
  const { inFlight } = options
  if (inFlight !== undefined && !(Number.isInteger(inFlight) && inFlight >= 1 && inFlight <= 65_536)) {
    throw new ArgumentError(`invokeMany: option inFlight: expected an integer, 1 … 65536, received ${String(inFlight)}`)
  }
}

export async function* invokeMany(
  invoke: Invoke,
  inputs: Iterable<unknown> | AsyncIterable<unknown>,
  options: ManyOptions,
): AsyncGenerator<unknown, void, void> {
  checkManyOptions(options)
  const { inFlight = 32, ordered = true, signal, ...rest } = options
  const abort = new AbortController()
  const callSignal = signal ? AbortSignal.any([signal, abort.signal]) : abort.signal
  // Every call in flight listens to it; that is no leak.
  setMaxListeners(0, callSignal)
  const callOptions: InvokeOptions = { ...rest, signal: callSignal }
  /** Results and failures that were not handed out. */
  const settled = new Map<number, Settled>()
  let taken = 0
  let handedOut = 0
  let wake = (): void => undefined
  const settle = (result: Settled): void => {
    settled.set(result.index, result)
    wake()
  }
  const source = new Source(inputs, {
    took: (input) => {
      const call = invoke(input, callOptions)
      const index = taken++
      call.then(
        (output) => settle({ index, output }),
        (reason: unknown) => settle({ index, error: { reason } }),
      )
    },
    failed: (reason) => settle({ index: taken++, error: { reason } }),
    changed: () => wake(),
  })
  callSignal.addEventListener('abort', () => wake(), { once: true })
  try {
    for (;;) {
      while (source.ready && taken - handedOut < inFlight) source.take()
      const [first] = ordered ? [settled.get(handedOut)] : settled.values()
      if (first) {
        const { index, output, error } = first
        settled.delete(index)
        handedOut++
        if (error) throw error.reason
        yield ordered ? output : { index, output }
      } else if (source.exhausted && handedOut === taken) {
        return
      } else {
        signal?.throwIfAborted()
        await new Promise<void>((resolve) => (wake = resolve))
      }
    }
  } finally {
    abort.abort()
    await source.leave()
  }
}
