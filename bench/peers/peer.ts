import type { FloorSpec } from '../../src/bench/floors.js'
import type { Call, FunctionName, Kind, Mode } from '../../src/bench/result.js'
import { awaitingSampler, concurrentSampler, warmUpOf, type Sampler } from '../../src/bench/sampler.js'
import { Touch } from '../../src/bench/touch.js'

export interface SamplerOptions {
  /** Size of input and of result. */
  readonly bytes: number
  /** Operations at a time, 1 or more. */
  readonly inFlight: number
}

/** What a call is, as results of the suite say it (src/bench/result.ts); `null` where a word does not apply. */
export interface PeerLabels {
  readonly transport: 'shm' | 'tcp' | 'unix' | null
  readonly path: 'host' | null
  /** `warm`: who waits for the other sleeps. */
  readonly mode: Mode
  /** In what the function that answers is written. */
  readonly kind: Kind | null
  readonly function: FunctionName
  readonly call: Call
  /** Who waits for a call: `await` in an event loop, native code, or a client of praas. */
  readonly client: string
}

/** Something whose calls can be measured: praas in one of its modes, or what it is compared with. */
export interface Peer {
  /** How `--peers` or `--subjects` names it. */
  readonly name: string
  readonly title: string
  readonly labels: PeerLabels
  /** Whether it has a form with several operations at a time. */
  readonly concurrent: boolean
  /** What the machine itself takes for such an exchange. Default: `floorsOfPeer`. */
  floors?(options: SamplerOptions): readonly FloorSpec[]
  /** Why it cannot be measured here; undefined when it can. */
  missing(): Promise<string | undefined>
  /** Starts its servers, which serve all of its samplers. */
  open(): Promise<OpenPeer>
}

export interface OpenPeer {
  sampler(options: SamplerOptions): Promise<Sampler>
  close(): Promise<void>
}

/** A function in JavaScript, called by a client that awaits results. */
export function awaited(transport: PeerLabels['transport'], name: FunctionName = 'null'): PeerLabels {
  return { transport, path: null, mode: 'warm', kind: 'ts', function: name, call: 'async', client: 'await' }
}

/** Of two sides that are connected by one stream or ring; none within one process. */
export function floorsOfPeer(
  { transport, mode, function: name }: PeerLabels,
  { bytes, inFlight }: SamplerOptions,
): FloorSpec[] {
  if (transport === null) return []
  const names = { shm: 'ring', tcp: mode === 'hot' ? 'tcp-spin' : 'tcp', unix: 'unix' } as const
  return [{ name: names[transport], bytes, inFlight, touch: name === 'touch' }]
}

/** How `--peers` names one of two functions. */
export function named(name: string, title: string, called: FunctionName): Pick<Peer, 'name' | 'title'> {
  return called === 'null' ? { name, title } : { name: `${name}-touch`, title: `${title}, touch` }
}

/** Sends a message and resolves with the answer. */
export type Exchange = (message: Uint8Array) => Promise<Uint8Array>

/** One call of `null`, or of `touch`, whose client writes all bytes of the message and reads all of the answer. */
export function callsOf(called: FunctionName, message: Uint8Array, exchange: Exchange): () => Promise<void> {
  const expected = message.length
  const checked = (answer: Uint8Array): Uint8Array => {
    if (answer.length !== expected) throw new Error('a reply of another size')
    return answer
  }
  const touch = new Touch()
  if (called === 'null') return async () => void checked(await exchange(message))
  return async () => {
    touch.write(message)
    touch.read(checked(await exchange(message)))
  }
}

/** A sampler of calls whose promise settles when they are done. */
export function sampleCalls(
  { bytes, inFlight }: SamplerOptions,
  call: () => Promise<unknown>,
  close: () => void | Promise<void>,
): Sampler {
  const options = { warmUp: warmUpOf(bytes), close }
  return inFlight > 1 ? concurrentSampler(call, inFlight, options) : awaitingSampler(call, options)
}
