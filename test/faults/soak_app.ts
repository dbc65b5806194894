/** What the soak calls. */
import { collectGarbage } from './garbage.js'

export const echo = (input: Uint8Array): Uint8Array => input

/** Blocks its worker for 100 ms. */
export function block(): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100)
}

export function collect(): void {
  collectGarbage()
}
