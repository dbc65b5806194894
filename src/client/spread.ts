/** Many calls of one function over the workers of a lease, and this thread. */
import { setMaxListeners } from 'node:events'
import { setImmediate as turn } from 'node:timers/promises'
import { ArgumentError } from '../errors.js'
import type { InvokeOptions } from './call.js'
import { checkManyOptions, type ManyResult } from './many.js'
import { Source } from './source.js'

export interface SpreadOptions<Output> extends Omit<InvokeOptions, 'output'> {
  /** Calls at a time per worker, 1 … 65,536. Default: 2, and with `local` as many as keep workers busy meanwhile. */
  readonly inFlight?: number
  /** Results in the order of the inputs. Default: true. */
  readonly ordered?: boolean
  /** The same function in this program: this thread takes a share of the inputs, too. */
  local?(this: void, input: unknown): Output | Promise<Output>
}

export interface SpreadResult<Output> extends ManyResult<Output> {
  /** Who has computed it. */
  readonly worker: number | 'local'
}

export interface SpreadDone {
  readonly output: unknown
  readonly worker: number
}

/** What inputs are spread over. */
export interface SpreadOver {
  invoke(input: unknown, options: InvokeOptions): Promise<SpreadDone>
  /** How many workers take calls now, at least 1. */
  workers(): number
  /** Milliseconds. */
  now(): number
}

interface Input {
  readonly index: number
  readonly value: unknown
}

interface Settled {
  readonly index: number
  readonly output?: unknown
  readonly worker?: number | 'local'
  readonly error?: { readonly reason: unknown }
}

const defaultInFlight = 2
/** Calls per worker at most, when their number follows from how long this thread computes. */
const maxMeasuredInFlight = 64
/** Inputs at most that are taken to see whether the end is near. */
const maxAhead = 1024
/** Results that wait for an earlier one, per call at a time. */
const maxWaiting = 4
/** Answers after which the older half counts no more: what takes how long may change. */
const maxMeasured = 256
/** So long this thread computes before I/O and timers have their turn, milliseconds. */
const turnMs = 0.2

export async function* spread(
  over: SpreadOver,
  inputs: Iterable<unknown> | AsyncIterable<unknown>,
  options: SpreadOptions<unknown>,
): AsyncGenerator<unknown, void, void> {
  const { local, ...manyOptions } = options
  checkManyOptions(manyOptions)
  if (local !== undefined && typeof local !== 'function') {
    throw new ArgumentError('invokeMany: option local: expected a function')
  }
  const { inFlight, ordered = true, signal, ...rest } = manyOptions
  const abort = new AbortController()
  const callSignal = signal ? AbortSignal.any([signal, abort.signal]) : abort.signal
  setMaxListeners(0, callSignal)
  const work = new SpreadWork(over, inputs, { ...rest, signal: callSignal }, { inFlight, ordered, local })
  callSignal.addEventListener('abort', () => work.changed(), { once: true })
  try {
    for (let turnedMs = over.now(); ;) {
      work.fill()
      const result = work.next()
      if (result) {
        if (result.error) throw result.error.reason
        const { index, output, worker } = result
        yield ordered ? output : { index, output, worker }
      } else if (work.finished) {
        return
      } else if (work.localDue) {
        work.computeHere()
        if (over.now() - turnedMs < turnMs) continue
        await turn()
        turnedMs = over.now()
      } else {
        signal?.throwIfAborted()
        await work.change()
        turnedMs = over.now()
      }
    }
  } finally {
    abort.abort()
    await work.end()
  }
}

class SpreadWork {
  readonly #over: SpreadOver
  readonly #source: Source
  readonly #callOptions: InvokeOptions
  readonly #inFlight: number | undefined
  readonly #ordered: boolean
  readonly #local: ((input: unknown) => unknown) | undefined
  /** Taken, and not begun. */
  readonly #ahead: Input[] = []
  /** Results and failures that were not handed out. */
  readonly #settled = new Map<number, Settled>()
  #taken = 0
  #handedOut = 0
  #running = 0
  #computing = false
  /** Calls that workers have answered since then, by which their speed is measured. */
  #answered = 0
  #sinceMs = 0
  /** This thread has computed since it heard from workers last. */
  #computed = false
  /** How long this thread takes for one input. */
  #localMs: number | undefined
  #wake: (() => void) | undefined

  constructor(
    over: SpreadOver,
    inputs: Iterable<unknown> | AsyncIterable<unknown>,
    callOptions: InvokeOptions,
    how: {
      readonly inFlight: number | undefined
      readonly ordered: boolean
      readonly local: ((input: unknown) => unknown) | undefined
    },
  ) {
    this.#over = over
    this.#source = new Source(inputs, {
      took: (value) => this.#ahead.push({ index: this.#taken++, value }),
      failed: (reason) => this.#fail(this.#taken++, reason),
      changed: () => {
        this.fill()
        this.changed()
      },
    })
    this.#callOptions = callOptions
    this.#inFlight = how.inFlight
    this.#ordered = how.ordered
    this.#local = how.local
  }

  get finished(): boolean {
    return this.#nothingToTake && this.#running === 0 && !this.#computing && this.#settled.size === 0
  }

  /** Whether this thread should begin an input: it would have finished it before the workers had finished all there is. */
  get localDue(): boolean {
    if (!this.#local || this.#computing || this.#ahead.length === 0) return false
    if (this.#localMs === undefined) return true
    // As if each worker were about to answer.
    const rate = (this.#answered + this.#over.workers()) / this.#measuredMs
    return (this.#running + this.#ahead.length) / rate >= this.#localMs
  }

  /** Gives workers what they have room for, and takes further inputs. */
  fill(): void {
    for (;;) {
      while (this.#running < this.#capacity) {
        const input = this.#ahead.shift()
        if (!input) break
        this.#begin(input)
      }
      if (!this.#source.ready || !this.#hasRoom) return
      this.#source.take()
    }
  }

  /** The next result to hand out, if it is there. */
  next(): Settled | undefined {
    const [first] = this.#ordered ? [this.#settled.get(this.#handedOut)] : this.#settled.values()
    if (!first) return undefined
    this.#settled.delete(first.index)
    this.#handedOut++
    return first
  }

  computeHere(): void {
    const input = this.#ahead.shift()
    if (!input || !this.#local) return
    this.#computed = true
    const beganMs = this.#over.now()
    const done = (output: unknown): void => {
      const tookMs = this.#over.now() - beganMs
      this.#localMs = this.#localMs === undefined ? tookMs : (this.#localMs + tookMs) / 2
      this.#settle({ index: input.index, output, worker: 'local' })
    }
    try {
      const output = this.#local(input.value)
      if (!(output instanceof Promise)) return done(output)
      this.#computing = true
      output
        .then(done, (reason: unknown) => this.#fail(input.index, reason))
        .finally(() => {
          this.#computing = false
          this.changed()
        })
    } catch (reason) {
      this.#fail(input.index, reason)
    }
  }

  change(): Promise<void> {
    this.#computed = false
    return new Promise((resolve) => (this.#wake = resolve))
  }

  /** Ends a wait for a change. */
  changed(): void {
    this.#wake?.()
    this.#wake = undefined
  }

  /** Takes no further inputs. */
  end(): Promise<void> {
    return this.#source.leave()
  }

  get #nothingToTake(): boolean {
    return this.#source.exhausted && this.#ahead.length === 0
  }

  /** Calls at a time. */
  get #capacity(): number {
    const workers = this.#over.workers()
    if (this.#inFlight !== undefined) return workers * this.#inFlight
    if (!this.#local || this.#localMs === undefined) return workers * defaultInFlight
    const meanwhile = Math.ceil(this.#answeredMeanwhile / workers) + 1
    return workers * Math.min(Math.max(meanwhile, defaultInFlight), maxMeasuredInFlight)
  }

  /** For one more input. */
  get #hasRoom(): boolean {
    const ahead = this.#local ? Math.min(Math.ceil(this.#answeredMeanwhile) + 1, maxAhead) : 0
    const free = this.#running < this.#capacity || this.#ahead.length < ahead
    return free && this.#taken - this.#handedOut < this.#capacity * maxWaiting + ahead
  }

  /** How many inputs all workers together finish while this thread computes one. */
  get #answeredMeanwhile(): number {
    return ((this.#localMs ?? 0) * this.#answered) / this.#measuredMs
  }

  get #measuredMs(): number {
    return Math.max(this.#over.now() - this.#sinceMs, 1e-3)
  }

  /** A worker has answered. */
  #measure(): void {
    this.#answered++
    // Nobody knows when they ran out of work: what was measured says nothing of their speed.
    if (this.#computed && this.#running === 0) {
      this.#answered = 0
      this.#sinceMs = this.#over.now()
    }
    if (this.#answered < maxMeasured) return
    this.#answered /= 2
    this.#sinceMs += this.#measuredMs / 2
  }

  #begin({ index, value }: Input): void {
    if (this.#running++ === 0 && this.#answered === 0) this.#sinceMs = this.#over.now()
    this.#over
      .invoke(value, this.#callOptions)
      .then(
        ({ output, worker }) => {
          this.#running--
          this.#measure()
          this.#settle({ index, output, worker })
        },
        (reason: unknown) => {
          this.#running--
          this.#fail(index, reason)
        },
      )
      .finally(() => {
        this.fill()
        this.changed()
      })
  }

  #settle(settled: Settled): void {
    this.#settled.set(settled.index, settled)
  }

  /** The first failure is the last result: nothing is begun after it. */
  #fail(index: number, reason: unknown): void {
    this.#settle({ index, error: { reason } })
    while ((this.#ahead.at(-1)?.index ?? -1) > index) this.#ahead.pop()
    void this.end().catch(() => undefined)
  }
}
