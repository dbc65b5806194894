/** What each way to call is compared with. */
import { ExternalSampler } from './external_sampler.js'
import { floorPinning, type Pinning } from './pinning.js'
import { benchProgram } from './programs.js'
import type { FunctionName, Mode, Path, Transport } from './result.js'
import type { FloorPart } from './runner.js'

/** What the program `praas-floor` measures. */
export type FloorName =
  | 'ring'
  | 'futex'
  | 'eventfd'
  | 'mq'
  | 'mq-spin'
  | 'unix'
  | 'unix-spin'
  | 'tcp'
  | 'tcp-spin'
  | 'verbs'
  | 'verbs-sleep'
  | 'memcpy'

export interface FloorSpec {
  readonly name: FloorName
  readonly bytes: number
  /** Of the answer. Default: as many. */
  readonly answerBytes?: number
  /** Default: 1. */
  readonly inFlight?: number
  /** All bytes are written before and read afterwards. Default: false. */
  readonly touch?: boolean
}

/** The small message: what it takes to say that something is there. */
const signalBytes = 64
/** Largest message of a POSIX message queue, as far as a floor uses it. */
const queueBytes = 8 * 1024
/** Up to here a call over shared memory copies its payload, as the ring does. */
const copiedBytes = 4 * 1024

/** Answers of `discard`. */
const acknowledgementBytes = 1

export interface FloorQuestion {
  readonly path: Path
  readonly transport: Transport
  readonly mode: Mode
  readonly function: FunctionName
  readonly bytes: number
}

/** What carries messages between machines. */
export const carriers = {
  tcp: { hot: 'tcp-spin', warm: 'tcp' },
  verbs: { hot: 'verbs', warm: 'verbs-sleep' },
} as const satisfies Record<Exclude<Transport, 'shm'>, Record<Mode, FloorName>>

/** The floor of one call at a time. */
export function floorsOfCall(question: FloorQuestion): FloorSpec[] {
  const { path, transport, mode, function: name, bytes } = question
  const answer = name === 'discard' ? { answerBytes: acknowledgementBytes } : {}
  const touch = name === 'touch'
  if (transport !== 'shm') {
    const carrier: FloorSpec = { name: carriers[transport][mode], bytes, touch, ...answer }
    // Where nobody polls, the host passes each call on to a worker through a message queue; to a leased one, it does not.
    return mode === 'hot' || path === 'lease' ? [carrier] : [carrier, queueOf(bytes)]
  }
  if (mode === 'hot') return [touch ? { name: 'ring', bytes, touch } : { ...ringOf(bytes), ...answer }]
  if (path === 'lease') return [{ name: 'futex', bytes: touch ? bytes : signalOf(bytes), touch, ...answer }]
  return touch && bytes > copiedBytes ? [{ name: 'futex', bytes, touch }] : [queueOf(bytes)]
}

/** The floor of a call from function to function. */
export function floorsOfNested(mode: Mode, bytes: number): FloorSpec[] {
  return [mode === 'warm' ? queueOf(bytes) : ringOf(bytes)]
}

/** The floor of many calls of `null` in flight; none over verbs, whose floor has one. */
export function floorsOfThroughput(transport: Transport, bytes: number, inFlight: number): FloorSpec[] {
  if (transport === 'verbs') return []
  return [{ ...(transport === 'tcp' ? { name: 'tcp', bytes } : ringOf(bytes)), inFlight }]
}

/** Larger inputs that nobody touches are not moved over shared memory: handing one over is a message. */
export function signalOf(bytes: number): number {
  return bytes <= copiedBytes ? bytes : signalBytes
}

function ringOf(bytes: number): FloorSpec {
  return { name: 'ring', bytes: signalOf(bytes) }
}

function queueOf(bytes: number): FloorSpec {
  return { name: 'mq', bytes: bytes <= queueBytes ? bytes : signalBytes }
}

/** Starts the programs of a floor. `shown` is the size of what is compared with it: other sizes become part of the name. */
export async function openFloor(
  specs: readonly FloorSpec[],
  shown: number,
  pinning: Pinning | undefined,
): Promise<FloorPart[]> {
  const parts: FloorPart[] = []
  try {
    for (const spec of specs) {
      const { name, bytes, answerBytes = bytes, inFlight = 1, touch = false } = spec
      const args = [name, '--bytes', String(bytes), ...(inFlight > 1 ? ['--in-flight', String(inFlight)] : [])]
      args.push(...(answerBytes < bytes ? ['--answer', String(answerBytes)] : []))
      args.push(...(touch ? ['--touch'] : []), ...floorPinning(pinning))
      parts.push({
        name: bytes === shown ? name : `${name}(${bytes} B)`,
        sampler: await ExternalSampler.start({ program: benchProgram('praas-floor'), args }),
      })
    }
    return parts
  } catch (error) {
    await closeFloor(parts)
    throw error
  }
}

export async function closeFloor(parts: readonly FloorPart[]): Promise<void> {
  for (const { sampler } of parts) await sampler[Symbol.asyncDispose]()
}
