/** Turns replies that come in the order of their requests, as events, into promises. */
export class Replies {
  readonly #waiting: (() => void)[] = []

  /** Resolves with the next reply that no earlier call waits for. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** A reply has come. */
  settle(): void {
    this.#waiting.shift()?.()
  }
}
