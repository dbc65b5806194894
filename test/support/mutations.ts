/** Bytes as they arrive damaged: a seeded stream of variants of something sound. */
import { randomInt } from 'node:crypto'

/** That of `PRAAS_TEST_SEED`, for the same damage again, or any. */
export function givenSeed(): number {
  return Number(process.env['PRAAS_TEST_SEED'] ?? randomInt(2 ** 31))
}

/** @returns numbers in [0, bound), the same for the same seed (mulberry32) */
export function seededNumbers(seed: number): (bound: number) => number {
  let state = seed
  return (bound) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) % bound
  }
}

/** A copy with a few bytes changed, a part cut out or repeated, or its end missing. */
export function mutated(sound: Uint8Array, number: (bound: number) => number): Uint8Array {
  let bytes = Uint8Array.from(sound)
  for (let change = 0; change <= number(4); change += 1) {
    if (bytes.length === 0) break
    const at = number(bytes.length)
    const length = 1 + number(Math.min(64, bytes.length - at))
    switch (number(5)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << number(8))
        break
      case 1:
        bytes[at] = [0, 0x7f, 0x80, 0xff, 0x22, 0x7b][number(6)] ?? 0
        break
      case 2:
        bytes = Uint8Array.from([...bytes.subarray(0, at), ...bytes.subarray(at + length)])
        break
      case 3:
        bytes = Uint8Array.from([...bytes.subarray(0, at + length), ...bytes.subarray(at)])
        break
      default:
        bytes = bytes.slice(0, at)
    }
  }
  return bytes
}
