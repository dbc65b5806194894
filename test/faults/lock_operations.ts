/** Reader/writer locks, held by clients and by functions. That nobody holds one with others the driver checks. */
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.js'
import { codeIn, expected } from './codes.js'
import type { Lane } from './lane.js'
import { lockWrite, writeOrder } from './order.js'
import { lockNames, type ServedProcess } from './plan.js'
import { callCodes, checkThrown } from './state_operations.js'
import { Violation } from './violation.js'

export async function lockByClient(lane: Lane, { id: process }: ServedProcess): Promise<void> {
  const { session, random } = lane
  const key = random.pick(lockNames)
  const mode = random.chance(0.5) ? 'write' : 'read'
  const timeoutMs = random.chance(0.2) ? random.integer(1, 100) : 4_000
  const signal = lane.signal(0.1)
  const { id, value } = await session.attempt(
    { lane: lane.index, kind: 'lock', process, timeoutMs, key, mode, expected: expected.lock },
    () => session.handle(process).state.lock(key, mode, { timeoutMs, ...(signal ? { signal } : {}) }),
  )
  if (!value) return
  await delay(random.integer(0, 20))
  session.history.write({ unlocking: id, at: nowMs() })
  try {
    await value.release()
    session.history.write({ unlocked: id, at: nowMs() })
  } catch (error) {
    const code = codeIn(error)
    session.history.write({ unlocked: id, at: nowMs(), code })
    // Whether nobody was there the driver knows.
    if (![...expected.release, ...expected.closed, ...expected.absent].includes(code as never)) {
      throw new Violation(
        'documented errors',
        `releasing lock ${key} of ${process}: ${code}: ${(error as Error).stack}`,
      )
    }
  }
}

export async function lockByFunction(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const fn = target.lane === 'native' ? 'n_lock' : 'lock'
  const key = random.pick(lockNames)
  const timeoutMs = random.chance(0.2) ? random.integer(1, 100) : 4_000
  const id = session.takeIds(1)
  const argument = random.integer(0, 20) + (random.chance(0.5) ? lockWrite : 0)
  const input = writeOrder({ id, operation: lockNames.indexOf(key), argument, key })
  const route = target.leased ? 'lease' : target.lane
  const signal = lane.signal(0.1)
  await session.attempt(
    {
      ...{ lane: lane.index, kind: 'call lock', process: process.id, timeoutMs, fn, ids: [id], route },
      ...{ over: target.via.transport, expected: callCodes(target) },
    },
    async () => {
      try {
        return await target.via.invoke(fn, input, { timeoutMs, ...(signal ? { signal } : {}) })
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
        checkThrown(error, ['ABORT_ERR', ...expected.thrown])
        return undefined
      }
    },
  )
}
