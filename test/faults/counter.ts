/**
 * The model of a counter in a shared array, which one lane increments: between the increments that were answered and those
 * whose answer is unknown as well.
 */
import { Contradiction } from './register.js'

export class Counter {
  #low = 0
  #high = 0
  /** When the last increment of unknown outcome can no longer happen. */
  #expiresMs = 0

  get low(): number {
    return this.#low
  }

  restore(value: number): void {
    this.#low = this.#high = value
  }

  /** An increment was answered with the new value. */
  incremented(value: number): void {
    this.#check(value, 1)
    this.#high++
    this.#low = value
  }

  unknown(expiresMs: number): void {
    this.#high++
    this.#expiresMs = Math.max(this.#expiresMs, expiresMs)
  }

  /** @param beganMs  when the read began */
  read(value: number, beganMs: number): void {
    this.#check(value, 0)
    this.#low = value
    if (beganMs >= this.#expiresMs) this.#high = value
  }

  fence(): void {
    this.#expiresMs = 0
  }

  describe(): string {
    return `possible: ${this.#low} … ${this.#high}`
  }

  #check(value: number, more: number): void {
    if (value < this.#low + more) throw new Contradiction(`an increment was lost: ${value}`)
    if (value > this.#high + more) throw new Contradiction(`an increment was done twice, or too late: ${value}`)
  }
}
