/** Turns replies that come in the order of their requests, as events, into promises. */
export class Replies<Reply> {
  readonly #waiting: ((reply: Reply) => void)[] = []

  /** Resolves with the next reply that no earlier call waits for. */
  next(): Promise<Reply> {
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  /** A reply has come. */
  settle(reply: Reply): void {
    this.#waiting.shift()?.(reply)
  }
}
