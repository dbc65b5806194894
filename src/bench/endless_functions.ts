/** The functions of processes whose leases are watched. The library of native ones has them, too. */
export { null } from './functions.js'

/** Never returns, and never lets anything else run in its worker. */
export function forever(): never {
  for (;;);
}
