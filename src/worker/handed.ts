/** Reads what native code says about the invocation it calls JavaScript for: memory, because arguments cost more. */

/** One invocation. */
export interface Handed {
  /** Names the invocation in every other call. */
  readonly handle: bigint
  /** Position of the function among those registered. */
  readonly fn: number
  readonly depth: number
  /** When its deadline passes, on the clock of `monotonicMs`. */
  readonly deadlineMs: number
  readonly stream: boolean
}

// WorkerWrap::Handed of native/napi/worker_wrap.h, in units of 8 bytes.
const deadlineAt = 0
const functionAt = 1
const depthAt = 2
const streamAt = 3
const handleAt = 4
const numbers = 5
const scratchBytes = 4096

export class HandedReader {
  readonly #numbers: Float64Array
  readonly #handles: BigUint64Array
  readonly #scratch: Uint8Array

  constructor(buffer: ArrayBuffer) {
    this.#numbers = new Float64Array(buffer, 0, numbers)
    this.#handles = new BigUint64Array(buffer, 0, numbers)
    this.#scratch = new Uint8Array(buffer, numbers * 8, scratchBytes)
  }

  /** The result of `invokeSync`, wherever native code has left it. */
  result(reply: Uint8Array | number): Uint8Array {
    return typeof reply === 'number' ? this.#scratch.slice(0, reply) : reply
  }

  /** The invocation that `hooks.invoke` has just been called for. */
  read(): Handed {
    return {
      handle: this.#handles[handleAt] ?? 0n,
      fn: this.#numbers[functionAt] ?? 0,
      depth: this.#numbers[depthAt] ?? 0,
      deadlineMs: this.#numbers[deadlineAt] ?? 0,
      stream: this.#numbers[streamAt] !== 0,
    }
  }
}
