/** Samplers of calls, by client. */
import type { InvokeOptions } from '../client/call.js'
import type { Endpoint } from '../control.js'
import { ExternalSampler } from './external_sampler.js'
import { floorPinning, type Pinning } from './pinning.js'
import { benchProgram } from './programs.js'
import type { Callee } from './callee.js'
import type { Call, FunctionName, Mode, Transport } from './result.js'
import {
  awaitingSampler,
  blockingSampler,
  concurrentSampler,
  generatorSampler,
  warmUpOf,
  type OperationOptions,
  type Sampler,
} from './sampler.js'
import { Touch } from './touch.js'

/** Who calls. */
export const clients = ['native', 'invokeSync', 'await invoke', 'invokeMany'] as const
export type Client = (typeof clients)[number]

export function callOf(client: Client): Call {
  return client === 'native' || client === 'invokeSync' ? 'sync' : 'async'
}

/** Up to here, a client copies an input to where it is sent from; larger ones are written there at once. */
const copiedBytes = 4 * 1024

/** Whether what `allocate` gives is used: memory of the worker, too, or memory that the device sends from. */
function isInPlace(transport: string, bytes: number): boolean {
  return transport !== 'tcp' && bytes > copiedBytes
}

/** Bytes that one call moves from place to place. */
export function movedBytes(transport: Transport, name: FunctionName, bytes: number): number {
  return transport === 'shm' && name !== 'touch' && isInPlace(transport, bytes) ? 0 : bytes
}

/** What one call takes and what is done around it. */
class Payload {
  readonly input: Uint8Array
  readonly options: InvokeOptions | undefined
  readonly #served: Callee
  readonly #shared: Uint8Array[] = []
  readonly #touch = new Touch()

  constructor(served: Callee, { function: name, bytes, inPlace = isInPlace(served.transport, bytes) }: CallSpec) {
    this.#served = served
    this.input = inPlace ? this.#allocate(bytes) : new Uint8Array(bytes)
    // Over shared memory `null` gives the input back where it lies; anything else needs a place.
    const needsPlace = name === 'touch' || (name === 'null' && served.transport !== 'shm')
    this.options = inPlace && needsPlace ? { output: this.#allocate(bytes) } : undefined
    this.input.fill(1)
  }

  /** Writes the whole input, as the client of `touch` does. */
  write(): void {
    this.#touch.write(this.input)
  }

  read(output: Uint8Array): void {
    this.#touch.read(output)
  }

  readonly close = (): void => {
    for (const memory of this.#shared) this.#served.release(memory)
  }

  #allocate(bytes: number): Uint8Array {
    const memory = this.#served.allocate(bytes)
    this.#shared.push(memory)
    return memory
  }
}

export interface CallSpec {
  readonly function: FunctionName
  readonly bytes: number
  /** Calls at a time; more than one with `await invoke` and `invokeMany` only. Default: 1. */
  readonly inFlight?: number
  /** Whether input and result lie in memory from `allocate()`. Default: above 4 KiB, but for TCP. */
  readonly inPlace?: boolean
  /** See `Sampler`. */
  readonly quietMs: number
}

/** Calls by a client in this OS process. `close`: what is to be done when there will be no more of them. */
export function callSampler(
  client: Exclude<Client, 'native'>,
  served: Callee,
  spec: CallSpec,
  close: () => Promise<void> = async () => undefined,
): Sampler {
  const { function: name, bytes, inFlight = 1, quietMs } = spec
  const payload = new Payload(served, spec)
  const closeAll = async (): Promise<void> => {
    payload.close()
    await close()
  }
  const options: OperationOptions = { warmUp: warmUpOf(bytes), quietMs, close: closeAll }
  const { input } = payload
  switch (client) {
    case 'invokeSync':
      return blockingSampler(blockingCall(served, name, payload), options)
    case 'await invoke':
      if (inFlight > 1) return concurrentSampler(() => served.invoke(name, input), inFlight, options)
      return awaitingSampler(awaitedCall(served, name, payload), options)
    case 'invokeMany':
      return generatorSampler((inputs) => served.invokeMany(name, repeated(input, inputs), { inFlight }), options)
  }
}

function blockingCall(served: Callee, name: FunctionName, payload: Payload): () => void {
  const { input, options } = payload
  if (name !== 'touch') return () => void served.invokeSync(name, input, options)
  return () => {
    payload.write()
    payload.read(served.invokeSync(name, input, options))
  }
}

function awaitedCall(served: Callee, name: FunctionName, payload: Payload): () => Promise<unknown> {
  const { input, options } = payload
  if (name !== 'touch') return () => served.invoke(name, input, options)
  return async () => {
    payload.write()
    payload.read(await served.invoke(name, input, options))
  }
}

function* repeated(input: Uint8Array, inputs: Iterable<undefined>): Generator<Uint8Array> {
  for (const _ of inputs) yield input
}

export interface NativeClientSpec extends CallSpec {
  readonly endpoint: Endpoint
  readonly process: string
  readonly transport: Transport
  readonly mode: Mode
  readonly pinning: Pinning | undefined
  /** The workers it calls are those of a lease it takes. Default: it calls through the host. */
  readonly lease?: { readonly hotMs: number }
}

/** How long a hot client polls for one answer: longer than any takes. */
const hotUs = 1_000_000

/** Calls by the client library in a program without Node. */
export function nativeClientSampler(spec: NativeClientSpec): Promise<Sampler> {
  const { endpoint, process: id, transport, mode, function: name, bytes, inFlight = 1, quietMs, pinning } = spec
  const { lease, inPlace = isInPlace(transport, bytes) } = spec
  const args = [
    ...['--port', String(endpoint.port), '--process', id, '--transport', transport, '--function', name],
    ...['--bytes', String(bytes), ...(inFlight > 1 ? ['--in-flight', String(inFlight)] : [])],
    ...(inPlace ? ['--allocate'] : []),
    ...(name === 'touch' ? ['--touch'] : []),
    ...(name === 'discard' ? ['--no-result'] : []),
    ...(lease ? ['--lease', String(lease.hotMs)] : []),
    ...(mode === 'hot' ? ['--hot-us', String(hotUs)] : []),
    ...floorPinning(pinning),
  ]
  const environment = { PRAAS_BENCH_TOKEN: endpoint.token }
  return ExternalSampler.start({ program: benchProgram('praas-bench-client'), args, environment, quietMs })
}
