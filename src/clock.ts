/** The machine's monotonic clock, which native code tells deadlines in: milliseconds. */
export function monotonicMs(): number {
  return Number(process.hrtime.bigint()) / 1e6
}
