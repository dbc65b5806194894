/** State of the process as one invocation reaches it: in shared memory, without a message to anybody. */
import { asBytes, describe, elementTypeOf, type TypedArray, type TypedArrayConstructor } from '../codecs.js'
import { ArgumentError, codeOf } from '../errors.js'
import type {
  KeyInfo,
  LockOptions,
  StateDeleteOptions,
  StateEntry,
  StateLock,
  StatePublishOptions,
  StateSetOptions,
  StateWaitOptions,
  WorkerState,
} from '../function/context.js'
import { checkKnown, checkName, checkOffset, checkTimeout } from '../limits.js'
import type { NativeWorker } from '../native/binding.js'
import { fromNative, translated } from '../native/errors.js'
import { keyInfo, pageKeys } from '../state_keys.js'
import type { InvocationContext } from './context.js'
import { guardShared } from './views.js'

const knownOptions = new Set(['timeoutMs', 'ifVersion', 'offset', 'prefix', 'signal', 'capacity'])
const noOptions: StateWaitOptions = Object.freeze({})

export class InvocationState implements WorkerState {
  readonly #worker: NativeWorker
  readonly #context: InvocationContext

  constructor(worker: NativeWorker, context: InvocationContext) {
    this.#worker = worker
    this.#context = context
  }

  get(key: string, options?: StateWaitOptions): Uint8Array | undefined {
    return this.entry(key, options)?.data
  }

  entry(key: string, options: StateWaitOptions = noOptions): StateEntry | undefined {
    const timeoutMs = this.#check(key, options)
    return translated(() => this.#worker.stateGet(key, timeoutMs))
  }

  view(key: string, options: StateWaitOptions = noOptions): Uint8Array | undefined {
    const timeoutMs = this.#check(key, options)
    const view = translated(() => this.#worker.stateView(this.#context.handle, key, timeoutMs))
    if (!view) return undefined
    return this.#context.views ? this.#context.views.copy(view) : guardShared(view)
  }

  set(key: string, data: Uint8Array | ArrayBufferView, options: StateSetOptions = noOptions): bigint {
    const timeoutMs = this.#check(key, options)
    const { ifVersion, offset } = options
    return translated(() =>
      this.#worker.stateSet(key, bytesOf(data), {
        timeoutMs,
        ...(ifVersion === undefined ? {} : { ifVersion }),
        ...(offset === undefined ? {} : { offset: checkOffset('offset', offset) }),
      }),
    )
  }

  compareAndSet(
    key: string,
    version: bigint,
    data: Uint8Array | ArrayBufferView,
    options: StateWaitOptions = noOptions,
  ): bigint | undefined {
    try {
      return this.set(key, data, { ...options, ifVersion: version })
    } catch (error) {
      if (codeOf(error) === 'ERR_STATE_VERSION') return undefined
      throw error
    }
  }

  array<Elements extends TypedArray>(
    key: string,
    constructor: TypedArrayConstructor<Elements>,
    length: number,
    options: StateWaitOptions = noOptions,
  ): Elements {
    const timeoutMs = this.#check(key, options)
    if (!Number.isSafeInteger(length) || length < 1) {
      throw new ArgumentError(`array: length: expected an integer of at least 1, received ${String(length)}`)
    }
    const elementType = elementTypeOf(constructor)
    const byteLength = length * constructor.BYTES_PER_ELEMENT
    const bytes = guardShared(translated(() => this.#worker.stateArray(key, elementType, byteLength, timeoutMs)))
    return new constructor(bytes.buffer, bytes.byteOffset, length)
  }

  append(key: string, data: Uint8Array | ArrayBufferView, options: StateWaitOptions = noOptions): bigint {
    const timeoutMs = this.#check(key, options)
    return translated(() => this.#worker.stateAppend(key, bytesOf(data), timeoutMs))
  }

  read(key: string, offset: number, length: number, options: StateWaitOptions = noOptions): Uint8Array {
    const timeoutMs = this.#check(key, options)
    checkOffset('offset', offset)
    checkOffset('length', length)
    return translated(() => this.#worker.stateRead(key, offset, length, timeoutMs))
  }

  delete(key: string, options: StateDeleteOptions = noOptions): boolean {
    const timeoutMs = this.#check(key, options)
    return translated(() => this.#worker.stateDelete(key, options.ifVersion, timeoutMs))
  }

  stat(key: string, options: StateWaitOptions = noOptions): KeyInfo | undefined {
    const timeoutMs = this.#check(key, options)
    const info = translated(() => this.#worker.stateStat(key, timeoutMs))
    return info && keyInfo(info)
  }

  publish(key: string, options: StatePublishOptions = noOptions): number {
    const timeoutMs = this.#check(key, options)
    const { capacity } = options
    if (capacity !== undefined) checkOffset('capacity', capacity)
    return translated(() => this.#worker.statePublish(key, capacity, timeoutMs))
  }

  unpublish(key: string, options: StateWaitOptions = noOptions): boolean {
    const timeoutMs = this.#check(key, options)
    return translated(() => this.#worker.stateUnpublish(key, timeoutMs))
  }

  *keys(options: { readonly prefix?: string } & StateWaitOptions = noOptions): Generator<KeyInfo, void, void> {
    checkKnown('keys', options, knownOptions)
    const prefix = options.prefix ?? ''
    for (let after = ''; ;) {
      const timeoutMs = this.#timeout(options)
      const from = after
      const page = translated(() => this.#worker.stateKeys(prefix, from, pageKeys, timeoutMs))
      for (const key of page) yield keyInfo(key)
      const last = page.at(-1)
      if (!last || page.length < pageKeys) return
      after = last.key
    }
  }

  lock(name: string, mode: 'read' | 'write' = 'write', options: LockOptions = noOptions): Promise<StateLock> {
    const lock = this.#lock(name, mode, options)
    // A handler that ends without waiting for its lock loses the request; that shall not end the worker.
    lock.catch(() => undefined)
    return lock
  }

  async #lock(name: string, mode: 'read' | 'write', options: LockOptions): Promise<StateLock> {
    const timeoutMs = this.#check(name, options)
    if (mode !== 'read' && mode !== 'write') {
      throw new ArgumentError(`lock: mode: expected "read" or "write", received ${JSON.stringify(mode)}`)
    }
    const { signal } = options
    signal?.throwIfAborted()
    const request = translated(() => this.#worker.lock(this.#context.handle, name, mode, timeoutMs))
    // Withdrawing the request makes its promise settle.
    const withdraw = (): void => this.#worker.unlock(request.id)
    signal?.addEventListener('abort', withdraw, { once: true })
    try {
      const handle = await request.promise
      signal?.throwIfAborted()
      return new InvocationLock(this.#worker, handle, name, mode)
    } catch (error) {
      signal?.throwIfAborted()
      throw fromNative(error)
    } finally {
      signal?.removeEventListener('abort', withdraw)
    }
  }

  #check(key: string, options: StateWaitOptions): number {
    checkName('a key', key)
    if (options === noOptions) return this.#timeout(options)
    checkKnown('state', options, knownOptions)
    return this.#timeout(options)
  }

  #timeout({ timeoutMs }: StateWaitOptions): number {
    checkTimeout('state', timeoutMs)
    return timeoutMs ?? this.#context.remainingMs
  }
}

class InvocationLock implements StateLock {
  readonly name: string
  readonly mode: 'read' | 'write'
  readonly #worker: NativeWorker
  readonly #handle: bigint
  #released = false

  constructor(worker: NativeWorker, handle: bigint, name: string, mode: 'read' | 'write') {
    this.#worker = worker
    this.#handle = handle
    this.name = name
    this.mode = mode
  }

  get released(): boolean {
    return this.#released
  }

  async release(): Promise<void> {
    if (this.#released) return
    this.#released = true
    translated(() => this.#worker.unlock(this.#handle))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.release()
  }
}

function bytesOf(data: Uint8Array | ArrayBufferView): Uint8Array {
  const bytes = data === undefined ? undefined : asBytes(data)
  if (!bytes) throw new ArgumentError(`state: data: expected bytes, received ${describe(data)}`)
  return bytes
}
