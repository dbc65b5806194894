/** The application of `praas doctor --loopback`. */

/** Gives its input back. */
export function echo(input: Uint8Array): Uint8Array {
  return input
}
