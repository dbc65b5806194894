/** Milliseconds of a clock that all OS processes of a machine share, and that stands still for nobody. */
export function nowMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
