/** Messages that functions put into the mailboxes of their process and take from them. What became of them the driver checks. */
import type { Process } from '../../src/client/process.js'
import { makeRecord, readRecords, recordHeader, recordsPerId } from './bytes.js'
import { expected } from './codes.js'
import type { Lane, Target } from './lane.js'
import { writeOrder } from './order.js'
import { limits, mailboxNames, type ServedProcess } from './plan.js'
import { callCodes, checkThrown } from './state_operations.js'
import { Violation } from './violation.js'

/** Of what nobody has taken, and of the call that takes it. */
const drainMs = 30_000

/** Only native functions have mailboxes. */
function nativeTarget(lane: Lane, process: ServedProcess): Target {
  const target = lane.target(process)
  if (target.lane === 'native') return target
  return { process, via: lane.session.handle(process.id), leased: false, lane: 'native' }
}

async function call(lane: Lane, process: ServedProcess, fn: 'n_put' | 'n_get', argument: number): Promise<void> {
  const { session, random } = lane
  const target = nativeTarget(lane, process)
  const key = random.pick(mailboxNames)
  const timeoutMs = lane.timeoutMs()
  const id = session.takeIds(1)
  const data = makeRecord(id * recordsPerId, messageBytes(lane))
  const input = writeOrder({ id, argument, key, ...(fn === 'n_put' ? { data } : {}) })
  const signal = lane.signal()
  const route = target.leased ? 'lease native' : 'native'
  await session.attempt(
    {
      ...{ lane: lane.index, kind: fn === 'n_put' ? 'message put' : 'message get', process: process.id, timeoutMs },
      ...{ key, fn, ids: [id], route, over: target.via.transport, expected: callCodes(target) },
    },
    async () => {
      try {
        return await target.via.invoke(fn, input, { timeoutMs, ...(signal ? { signal } : {}) })
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
        checkThrown(error, [...expected.thrown, 'ERR_STATE_MEMORY'])
        return undefined
      }
    },
    (message) => (message && fn === 'n_get' ? { seen: { records: readMessages(key, message) } } : undefined),
  )
}

function messageBytes({ random }: Lane): number {
  return random.chance(0.95) ? random.integer(recordHeader, 600) : random.integer(4_000, 100_000)
}

export const putMessage = (lane: Lane, process: ServedProcess): Promise<void> => call(lane, process, 'n_put', 0)

/** Waits for one now and then. */
export const getMessage = (lane: Lane, process: ServedProcess): Promise<void> =>
  call(lane, process, 'n_get', lane.random.chance(0.3) ? lane.random.integer(1, 60) : 0)

function readMessages(key: string, message: Uint8Array): number[] {
  try {
    return readRecords(message)
  } catch (error) {
    throw new Violation('values are whole', `a message of ${key}: ${(error as Error).message}`)
  }
}

/** What is left in the mailboxes of a process, in the order in which it comes. */
export async function takeMessages(process: Process): Promise<Record<string, readonly number[]>> {
  const left: Record<string, readonly number[]> = {}
  for (const key of mailboxNames) {
    const input = writeOrder({ id: 0, argument: limits.maxContiguous, key })
    left[key] = readMessages(key, await process.invoke('n_drain', input, { timeoutMs: drainMs }))
  }
  return left
}
