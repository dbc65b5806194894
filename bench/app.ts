// The functions the benchmarks call.

/** The input as it stands. */
export function echo(input: Uint8Array): Uint8Array {
  return input
}

export async function echoLater(input: Uint8Array): Promise<Uint8Array> {
  return input
}
