/** Many calls of one function, a bounded number at a time. */
import { setMaxListeners } from 'node:events'
import { ArgumentError } from '../errors.js'
import { checkInvokeOptions, invokeOptions, type InvokeOptions } from './call.js'

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

interface Running {
  readonly index: number
  /** Never rejects: an early failure must not be an unhandled rejection while others are awaited. */
  readonly settled: Promise<Settled>
}

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
  const iterator = iterate(inputs)
  const running = new Map<number, Running>()
  let exhausted = false
  let taken = 0
  try {
    for (;;) {
      while (!exhausted && running.size < inFlight) {
        const next = await iterator.next()
        if (next.done === true) {
          exhausted = true
          break
        }
        const index = taken++
        running.set(index, { index, settled: settle(index, invoke(next.value, callOptions)) })
      }
      if (running.size === 0) return
      const [first] = running.values()
      const { index, output, error } = await (ordered && first
        ? first.settled
        : Promise.race(Array.from(running.values(), (call) => call.settled)))
      running.delete(index)
      if (error) throw error.reason
      yield ordered ? output : { index, output }
    }
  } finally {
    abort.abort()
    if (!exhausted) await iterator.return?.()
  }
}

async function settle(index: number, call: Promise<unknown>): Promise<Settled> {
  try {
    return { index, output: await call }
  } catch (reason) {
    return { index, error: { reason } }
  }
}

export function iterate(
  inputs: Iterable<unknown> | AsyncIterable<unknown>,
): AsyncIterator<unknown> | Iterator<unknown> {
  if (typeof inputs === 'object' && inputs !== null) {
    if (Symbol.asyncIterator in inputs) return inputs[Symbol.asyncIterator]()
    if (Symbol.iterator in inputs) return inputs[Symbol.iterator]()
  }
  throw new ArgumentError('invokeMany: inputs: expected an array or another (async) iterable')
}
