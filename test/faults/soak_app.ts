/** What the soak calls. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

export const echo = (input: Uint8Array): Uint8Array => input

/** So that what is measured is what is held, and not what is yet to be collected. */
export function collect(): void {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  gc()
  gc()
}
