/** What is measured is what is held, and not what is yet to be collected. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'

let collectOnce: (() => void) | undefined

export function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  collectOnce ??= runInNewContext('gc') as () => void
  collectOnce()
  collectOnce()
}
