/** What this build of the package can do on this machine. */
import { native, type Capabilities } from './native/binding.js'

/**
 * Version, transports, and what is missing with the reason.
 *
 * @throws {PraasError} `ERR_ADDON_LOAD`
 */
export function capabilities(): Capabilities {
  return native().capabilities()
}

export type { Capabilities }
