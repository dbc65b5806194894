/** How `touch` uses bytes, for praas and what it is compared with; bench/native/touch.h is the same in C. */

/** A byte that is never written. */
const absent = 0xff

/** The client's part. */
export class Touch {
  #value = 0

  /** Writes all bytes, other ones than the last time. */
  write(input: Uint8Array): void {
    input.fill((this.#value = (this.#value + 1) & 0x7f))
  }

  /** Reads all bytes: none of them is the one that is looked for. */
  read(output: Uint8Array): void {
    if (output.indexOf(absent) >= 0) throw new Error('the result has bytes that the input had not')
  }
}

/** The function's part: reads the whole input and writes as much. */
export function answer(input: Uint8Array, output: Uint8Array): Uint8Array {
  output.set(input)
  return output
}
