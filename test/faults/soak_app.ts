/** What the soak calls. */
import { collectGarbage } from './garbage.js'

export const echo = (input: Uint8Array): Uint8Array => input

export function collect(): void {
  collectGarbage()
}
