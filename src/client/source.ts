/** What a caller gives to be taken piece by piece. */
import { ArgumentError } from '../errors.js'

export interface SourceListener {
  took(input: unknown): void
  /** It has failed, and says no more. */
  failed(reason: unknown): void
  /** An answer has come that was waited for: after `took` and `failed`, and at the end. */
  changed(): void
}

/** Inputs of many calls, taken while others run: nobody waits for a source that has nothing to say for a while. */
export class Source {
  readonly #iterator: AsyncIterator<unknown> | Iterator<unknown>
  readonly #listener: SourceListener
  #asked = false
  #exhausted = false

  /** @throws {ArgumentError} unless they are an iterable */
  constructor(inputs: Iterable<unknown> | AsyncIterable<unknown>, listener: SourceListener) {
    this.#iterator = iterate(inputs)
    this.#listener = listener
  }

  /** Nothing more comes. */
  get exhausted(): boolean {
    return this.#exhausted
  }

  /** Whether it can be asked for another input. */
  get ready(): boolean {
    return !this.#exhausted && !this.#asked
  }

  /** Asks for the next input. An iterable that is not asynchronous answers before this returns. */
  take(): void {
    try {
      const next = this.#iterator.next()
      if ('then' in next) void this.#await(next)
      else this.#took(next)
    } catch (reason) {
      this.#failed(reason)
    }
  }

  /** Takes no more, and tells the iterable so. It is waited for unless it has been asked for something. */
  async leave(): Promise<void> {
    if (this.#exhausted) return
    this.#exhausted = true
    if (this.#asked) leave(this.#iterator)
    else await this.#iterator.return?.()
  }

  async #await(next: Promise<IteratorResult<unknown>>): Promise<void> {
    this.#asked = true
    try {
      this.#took(await next)
    } catch (reason) {
      this.#failed(reason)
    }
    this.#asked = false
    this.#listener.changed()
  }

  #took(next: IteratorResult<unknown>): void {
    if (this.#exhausted) return
    if (next.done === true) this.#exhausted = true
    else this.#listener.took(next.value)
  }

  #failed(reason: unknown): void {
    if (this.#exhausted) return
    this.#exhausted = true
    this.#listener.failed(reason)
  }
}

/** Tells a source that nobody reads on. It may take its time, or fail: nobody waits for it any more. */
export function leave(iterator: AsyncIterator<unknown> | Iterator<unknown>): void {
  new Promise((resolve) => resolve(iterator.return?.())).catch(() => undefined)
}

function iterate(inputs: Iterable<unknown> | AsyncIterable<unknown>): AsyncIterator<unknown> | Iterator<unknown> {
  if (typeof inputs === 'object' && inputs !== null) {
    if (Symbol.asyncIterator in inputs) return inputs[Symbol.asyncIterator]()
    if (Symbol.iterator in inputs) return inputs[Symbol.iterator]()
  }
  throw new ArgumentError('invokeMany: inputs: expected an array or another (async) iterable')
}
