/** Pseudo-random numbers that a seed and a name determine: every client, lane and injector draws from a sequence of its own. */
import { createHash } from 'node:crypto'

export class Random {
  readonly #name: string
  readonly #state: Uint32Array

  constructor(name: string) {
    this.#name = name
    const digest = createHash('sha256').update(name).digest()
    this.#state = new Uint32Array(4)
    for (let word = 0; word < 4; word++) this.#state[word] = digest.readUInt32LE(word * 4)
  }

  /** A sequence that does not depend on how much of this one was used. */
  fork(name: string | number): Random {
    return new Random(`${this.#name}/${name}`)
  }

  /** In [0, 1): sfc32. */
  next(): number {
    const state = this.#state
    const [a = 0, b = 0, c = 0, counter = 0] = state
    const sum = (a + b + counter) | 0
    state[3] = counter + 1
    state[0] = b ^ (b >>> 9)
    state[1] = (c + (c << 3)) | 0
    state[2] = ((c << 21) | (c >>> 11)) + sum
    return (sum >>> 0) / 2 ** 32
  }

  /** An integer of [low, high]. */
  integer(low: number, high: number): number {
    return low + Math.floor(this.next() * (high - low + 1))
  }

  chance(probability: number): boolean {
    return this.next() < probability
  }

  pick<Item>(items: readonly Item[]): Item {
    const item = items[this.integer(0, items.length - 1)]
    if (item === undefined) throw new Error('there is nothing to pick from')
    return item
  }

  /** A name, as often as its weight says. */
  weighted<Name extends string>(weights: Readonly<Partial<Record<Name, number>>>): Name {
    const entries = Object.entries(weights) as [Name, number][]
    let rest = this.next() * entries.reduce((sum, [, weight]) => sum + weight, 0)
    for (const [name, weight] of entries) if ((rest -= weight) < 0) return name
    return this.pick(entries)[0]
  }

  /** Milliseconds between two events of a Poisson process. */
  pause(meanMs: number): number {
    return -Math.log(1 - this.next()) * meanMs
  }
}
