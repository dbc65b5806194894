/**
 * What JavaScript may do with memory that others share.
 *
 * `input`, `view` and `output` are valid until the handler settles. Normally they are views of shared memory, whose buffers
 * must not be transferred: that would detach every other view on the same mapping. With PRAAS_CHECK_VIEWS each gets a
 * buffer of its own that is detached at the end, so that code that keeps a view finds it empty instead of reading what
 * happens to lie there later.
 */
/** The views of one invocation under PRAAS_CHECK_VIEWS. */
export class CheckedViews {
  readonly #buffers: ArrayBuffer[] = []

  /** A copy of shared bytes in a buffer of its own. */
  copy(shared: Uint8Array): Uint8Array {
    const own = this.allocate(shared.byteLength)
    own.set(shared)
    return own
  }

  allocate(byteLength: number): Uint8Array {
    const buffer = new ArrayBuffer(byteLength)
    this.#buffers.push(buffer)
    return new Uint8Array(buffer)
  }

  /** Detaches all of them. */
  end(): void {
    for (const buffer of this.#buffers) {
      // What the handler transferred elsewhere is no longer ours to detach.
      if (buffer.byteLength > 0) structuredClone(buffer, { transfer: [buffer] })
    }
    this.#buffers.length = 0
  }
}

let threads: typeof import('node:worker_threads') | undefined

/** Loads what `guardShared` needs. It takes milliseconds, which neither a start nor the first call should wait for. */
export function prepareGuards(): void {
  threads ??= process.getBuiltinModule('node:worker_threads')
}

let lastMarked: ArrayBufferLike | undefined
const marked = new WeakSet<ArrayBufferLike>()

/** Makes the buffer under a shared view one that `postMessage` and `structuredClone` refuse to transfer. */
export function guardShared(view: Uint8Array): Uint8Array {
  const { buffer } = view
  // Nearly always the same mapping as before: one comparison instead of a look-up per call.
  if (buffer !== lastMarked) {
    if (!marked.has(buffer)) {
      marked.add(buffer)
      prepareGuards()
      threads?.markAsUntransferable(buffer)
    }
    lastMarked = buffer
  }
  return view
}

/** From here on payloads are never copied; docs/benchmarks.md. */
const smallBytes = 4096

/**
 * The input of an invocation. A small one is copied as long as guards would have to be prepared for it: in the first 20 ms
 * of a worker.
 */
export function guardInput(view: Uint8Array): Uint8Array {
  return threads === undefined && view.byteLength < smallBytes ? view.slice() : guardShared(view)
}
