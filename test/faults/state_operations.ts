/** Operations on the keys of a lane, asked for by the client itself, or by functions. */
import type { Process } from '../../src/client/process.js'
import { makeRecord, readRecords, recordsPerId } from './bytes.js'
import { expected, thrownCode } from './codes.js'
import type { Lane, OwnCounter, OwnKey, Target } from './lane.js'
import { operations, readAnswer, statuses, writeOrder, type Answer, type Order } from './order.js'
import { sharedKeys, type PlannedKey, type ServedProcess } from './plan.js'
import type { Seen, Write, WriteAnswer } from './register.js'
import type { Attempted } from './session.js'
import { Violation } from './violation.js'

/** Of one operation. */
const maxRecords = 3
/** Of one value. */
const maxLength = 8

const stateFunction = { node: 'state', native: 'n_state' } as const

const routeOf = ({ lane, leased, via }: Target) => ({
  ...{ fn: stateFunction[lane], route: leased ? 'lease' : lane, over: via.transport },
})

/** Ids of the records that operation `id` writes. */
const recordIds = (id: number, count: number): number[] =>
  Array.from({ length: count }, (_, nth) => id * recordsPerId + nth)

const nothingChanged: ReadonlySet<string> = new Set(['ERR_STATE_MEMORY', 'ERR_ARGUMENT_INVALID'])

function plannedWrite(lane: Lane, { register }: OwnKey, id: number): Write {
  const { random } = lane
  const kind = random.weighted({
    set: 5,
    append: register.longest < maxLength ? 4 : 0,
    patch: 2,
    delete: 1,
    compareAndSet: 3,
  })
  const ifVersion = register.records === undefined ? '0' : (register.version ?? '0')
  switch (kind) {
    case 'set':
      return { kind, records: recordIds(id, random.integer(1, maxRecords)) }
    case 'compareAndSet':
      return { kind: 'set', records: recordIds(id, random.integer(1, maxRecords)), ifVersion }
    case 'append':
      return { kind, records: recordIds(id, 1) }
    case 'patch':
      return { kind, records: recordIds(id, 1), at: random.integer(0, Math.min(register.shortest, maxLength - 1)) }
    case 'delete':
      return random.chance(0.3) && ifVersion !== '0' ? { kind, ifVersion } : { kind }
  }
}

/** The orders in which writes whose answers are unknown may take effect are as many as the factorial of their number. */
const mostFloating = 6

export async function write(lane: Lane, own: OwnKey): Promise<void> {
  const { session } = lane
  const { register } = own
  if (register.floating >= mostFloating) {
    await read(lane, own)
    return
  }
  const id = session.takeIds(1)
  const planned = plannedWrite(lane, own, id)
  const { answer, beganMs, timeoutMs } = await attemptWrite(lane, own, id, planned)
  checkRegister(lane, own, id, beganMs, () =>
    register.write(id, planned, answer, beganMs + timeoutMs + session.task.allowanceMs),
  )
  // Nothing can be known of a key whose every operation may yet happen.
  if (register.possibilities > 6 || register.floating > 3) await read(lane, own)
}

/** What an operation that began then says of its key. */
function checkRegister(lane: Lane, { key, register }: OwnKey, id: number, beganMs: number, say: () => void): void {
  lane.checking(
    'acknowledged state is kept',
    key,
    id,
    () => register.describe(),
    () => {
      register.expire(beganMs)
      say()
    },
  )
}

/** By the client itself, or by a function. */
async function attemptWrite(lane: Lane, own: PlannedKey, id: number, planned: Write) {
  const { session, random } = lane
  const { key, process } = own
  const data =
    'records' in planned
      ? Buffer.concat(planned.records.map((record) => makeRecord(record, own.recordBytes)))
      : undefined
  const timeoutMs = lane.timeoutMs()
  const anyFunction = random.chance(0.5) ? lane.target(process) : undefined
  // A native function deletes whatever version there is.
  const onlyClient = planned.kind === 'delete' && planned.ifVersion !== undefined && anyFunction?.lane === 'native'
  const target = onlyClient ? undefined : anyFunction
  const run = (): Promise<WriteAnswer> =>
    target
      ? writeByFunction(lane, target, own, id, planned, data, timeoutMs)
      : writeByClient(lane, own, planned, data, timeoutMs)
  const about = {
    lane: lane.index,
    kind: `write ${planned.kind}`,
    process: process.id,
    timeoutMs,
    key,
    write: planned,
    ids: [id],
  }
  const codes = target ? callCodes(target) : expected.stateWrite
  const route = target ? routeOf(target) : {}
  const attempted = await session.attempt(
    { ...about, ...route, expected: codes },
    () => run().catch((error: unknown) => answerTo(error, target)),
    (answer) => ({ answer }),
  )
  const answer: WriteAnswer = attempted.value ?? { outcome: 'unknown' }
  return { answer, beganMs: attempted.beganMs, timeoutMs }
}

/** Writes what all clients write: what has become of it the driver checks, when everything stands still. */
export async function share(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const id = session.takeIds(1)
  const own = (key: string): PlannedKey => ({ key, process, recordBytes: 64, published: false })
  if (random.chance(0.6)) {
    await attemptWrite(lane, own(sharedKeys.log), id, { kind: 'append', records: recordIds(id, 1) })
    return
  }
  const timeoutMs = lane.timeoutMs()
  const reading = session.takeIds(1)
  const { value: ifVersion } = await session.attempt(
    {
      ...{ lane: lane.index, kind: 'shared read', process: process.id, timeoutMs, ids: [reading] },
      expected: expected.state,
    },
    async () => {
      const entry = await session.handle(process.id).state.entry(sharedKeys.register, { timeoutMs })
      return entry?.version.toString() ?? '0'
    },
  )
  if (ifVersion === undefined) return
  await attemptWrite(lane, own(sharedKeys.register), id, { kind: 'set', records: recordIds(id, 1), ifVersion })
}

/** Errors that are answers. */
function answerTo(error: unknown, target: Target | undefined): WriteAnswer {
  const code = (error as { code?: string }).code ?? ''
  if (target) {
    if (code !== 'ERR_FUNCTION_THREW') throw error
    checkThrown(error, expected.thrown)
    return { outcome: 'unknown' }
  }
  if (code === 'ERR_STATE_VERSION') return { outcome: 'mismatch' }
  if (nothingChanged.has(code)) return { outcome: 'nothing' }
  throw error
}

export function checkThrown(error: unknown, codes: readonly string[]): void {
  const code = thrownCode(error)
  if (codes.includes(code)) return
  throw new Violation('documented errors', `a function threw ${code}: ${String((error as Error).message)}`)
}

export const callCodes = ({ leased }: Target): readonly string[] =>
  leased ? [...expected.call, ...expected.lease] : expected.call

async function writeByClient(
  lane: Lane,
  own: PlannedKey,
  planned: Write,
  data: Buffer | undefined,
  timeoutMs: number,
): Promise<WriteAnswer> {
  const { state } = lane.session.handle(own.process.id)
  const signal = lane.signal()
  const options = { timeoutMs, ...(signal ? { signal } : {}) }
  const condition =
    'ifVersion' in planned && planned.ifVersion !== undefined ? { ifVersion: BigInt(planned.ifVersion) } : {}
  switch (planned.kind) {
    case 'set':
      return done(await state.set(own.key, data, { ...options, ...condition }))
    case 'append':
      return done(await state.append(own.key, data!, options))
    case 'patch':
      return done(await state.set(own.key, data, { ...options, offset: planned.at * own.recordBytes }))
    case 'delete':
      return { outcome: 'done', existed: await state.delete(own.key, { ...options, ...condition }) }
  }
}

const done = (version: bigint): WriteAnswer => ({ outcome: 'done', version: version.toString() })

async function writeByFunction(
  lane: Lane,
  target: Target,
  { key, recordBytes }: PlannedKey,
  id: number,
  planned: Write,
  data: Buffer | undefined,
  timeoutMs: number,
): Promise<WriteAnswer> {
  const version = 'ifVersion' in planned ? planned.ifVersion : undefined
  const argument = planned.kind === 'patch' ? planned.at * recordBytes : 0
  const order = { id, operation: operations[planned.kind], argument, key, version, ...(data ? { data } : {}) }
  const answer = await operate(lane, target, order, timeoutMs)
  switch (answer.status) {
    case statuses.mismatch:
      return { outcome: 'mismatch' }
    case statuses.memory:
      return { outcome: 'nothing' }
    default:
      return planned.kind === 'delete'
        ? { outcome: 'done', existed: answer.existed }
        : { outcome: 'done', version: answer.version }
  }
}

async function operate(lane: Lane, { via, lane: language }: Target, order: Order, timeoutMs: number): Promise<Answer> {
  const input = writeOrder(order)
  const fn = stateFunction[language]
  if (via.closed) return readAnswer(await via.invoke(fn, input, { timeoutMs })) // says why
  if (lane.random.chance(0.3) && (!('connection' in via) || via.connection)) {
    return readAnswer(lane.session.blocking(() => via.invokeSync(fn, input, { timeoutMs })))
  }
  const signal = lane.signal()
  return readAnswer(await via.invoke(fn, input, { timeoutMs, ...(signal ? { signal } : {}) }))
}

export async function read(
  lane: Lane,
  own: OwnKey,
  { timeoutMs = lane.timeoutMs(), way = wayToRead(lane, own) } = {},
): Promise<Attempted<Seen>> {
  const { session } = lane
  const { key, process, register } = own
  const asked = way in waysOfFunctions ? waysOfFunctions[way as keyof typeof waysOfFunctions] : undefined
  const target = asked === undefined ? undefined : lane.target(process)
  const about = { lane: lane.index, kind: `read ${way}`, process: process.id, timeoutMs, key }
  const id = session.takeIds(1)
  const route = target ? routeOf(target) : {}
  const attempted = await session.attempt(
    { ...about, ...route, ids: [id], expected: target ? callCodes(target) : expected.state },
    async () => {
      if (!target || asked === undefined) return readByClient(lane, own, way, timeoutMs)
      try {
        return await readByFunction(lane, target, own, { id, operation: asked, key }, timeoutMs)
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
        checkThrown(error, expected.thrown)
        return undefined
      }
    },
    (seen) => (seen ? { seen } : undefined),
  )
  const { value: seen } = attempted
  if (seen) checkRegister(lane, own, id, attempted.beganMs, () => register.read(seen))
  return attempted as Attempted<Seen>
}

/** By clients and by functions. */
const waysOfClients = { get: 2, entry: 3, part: 1, stat: 2, keys: 1 } as const
const waysOfFunctions = {
  'by function': operations.get,
  'by view': operations.view,
  'function stat': operations.stat,
  'function keys': operations.list,
} as const
type WayToRead = keyof typeof waysOfClients | 'read' | keyof typeof waysOfFunctions

const wayToRead = ({ random }: Lane, { published }: OwnKey): WayToRead =>
  random.weighted({
    ...waysOfClients,
    ...{ read: published ? 8 : 1, 'by function': 2, 'by view': 2, 'function stat': 1, 'function keys': 1 },
  })

async function readByFunction(
  lane: Lane,
  target: Target,
  { key, recordBytes }: OwnKey,
  order: Order,
  timeoutMs: number,
): Promise<Seen> {
  const room = recordBytes * 2 * maxLength
  const { status, version, data, number } = await operate(lane, target, { ...order, argument: room }, timeoutMs)
  if (status === statuses.absent) return {}
  const told = version === '0' ? {} : { version }
  switch (order.operation) {
    case operations.stat:
    case operations.list:
      return { count: counted(key, number, recordBytes), ...told }
    default:
      return { records: intact(key, data), ...told }
  }
}

async function readByClient(lane: Lane, own: OwnKey, way: WayToRead, timeoutMs: number): Promise<Seen> {
  const { key, process, register, recordBytes } = own
  const { state } = lane.session.handle(process.id)
  const signal = lane.signal()
  const options = { timeoutMs, ...(signal ? { signal } : {}) }
  switch (way) {
    case 'get': {
      const value = await state.get(key, options)
      return value ? { records: intact(key, value) } : {}
    }
    case 'read': {
      const entry = await state.read(key, options)
      return entry ? { records: intact(key, entry.data), version: entry.version.toString() } : {}
    }
    case 'part':
      // One record that is certainly there, or nothing: what is absent is an error.
      try {
        const at = lane.random.integer(0, Math.max(register.shortest - 1, 0))
        intact(key, await state.read(key, at * recordBytes, recordBytes, options))
      } catch (error) {
        if ((error as { code?: string }).code === 'ERR_STATE_NOT_FOUND') return {}
        throw error
      }
      return readByClient(lane, own, 'entry', timeoutMs)
    case 'stat': {
      const info = await state.stat(key, options)
      return info ? { count: counted(key, info.byteLength, recordBytes), version: info.version.toString() } : {}
    }
    case 'keys': {
      for await (const info of state.keys({ ...options, prefix: key })) {
        if (info.key === key)
          return { count: counted(key, info.byteLength, recordBytes), version: info.version.toString() }
      }
      return {}
    }
    default: {
      const entry = await state.entry(key, options)
      return entry ? { records: intact(key, entry.value), version: entry.version.toString() } : {}
    }
  }
}

function intact(key: string, value: Uint8Array): number[] {
  try {
    return readRecords(value)
  } catch (error) {
    throw new Violation('values are whole', `${key}: ${(error as Error).message}`)
  }
}

function counted(key: string, bytes: number, recordBytes: number): number {
  if (bytes % recordBytes !== 0)
    throw new Violation('values are whole', `${key} has ${bytes} bytes, no multiple of ${recordBytes}`)
  return bytes / recordBytes
}

/** By a function: clients cannot change arrays. */
export async function count(lane: Lane, { key, process, counter }: OwnCounter, more: number): Promise<boolean> {
  const { session } = lane
  const timeoutMs = lane.timeoutMs()
  const target = lane.target(process)
  const id = session.takeIds(1)
  const attempted = await session.attempt(
    {
      ...{ lane: lane.index, kind: more > 0 ? 'increment' : 'count', process: process.id, timeoutMs, key, ids: [id] },
      ...{ ...routeOf(target), expected: callCodes(target) },
    },
    async () => {
      try {
        return (await operate(lane, target, { id, operation: operations.increment, argument: more, key }, timeoutMs))
          .number
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
        checkThrown(error, expected.thrown)
        return undefined
      }
    },
    (number) => (number === undefined ? undefined : { count: number }),
  )
  lane.checking(
    'increments happen once',
    key,
    id,
    () => counter.describe(),
    () => {
      if (attempted.value === undefined) {
        if (more > 0) counter.unknown(attempted.beganMs + timeoutMs + session.task.allowanceMs)
      } else if (more > 0) counter.incremented(attempted.value)
      else counter.read(attempted.value, attempted.beganMs)
    },
  )
  return attempted.value !== undefined
}

/** Which keys are published changes what a read takes, and nothing of what it finds. */
export async function publish(lane: Lane, { key, process, recordBytes }: OwnKey): Promise<void> {
  const { session, random } = lane
  const timeoutMs = lane.timeoutMs()
  const { state } = session.handle(process.id)
  const begins = random.chance(0.8)
  const capacity = recordBytes * random.integer(1, maxLength)
  const kind = begins ? 'publish' : 'unpublish'
  const about = { lane: lane.index, kind, process: process.id, timeoutMs, key }
  if (random.chance(0.5)) {
    await session.attempt({ ...about, expected: expected.stateWrite }, async () => {
      await (begins ? state.publish(key, { timeoutMs, capacity }) : state.unpublish(key, { timeoutMs }))
    })
    return
  }
  const target = lane.target(process)
  const id = session.takeIds(1)
  await session.attempt(
    { ...about, kind: `function ${kind}`, ids: [id], ...routeOf(target), expected: callCodes(target) },
    async () => {
      try {
        await operate(lane, target, { id, operation: operations[kind], argument: capacity, key }, timeoutMs)
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
        checkThrown(error, expected.thrown)
      }
    },
  )
}

/** A key of another client: what is read is whole, and versions do not go back. What it may be the driver checks. */
export async function readForeign(lane: Lane, key: string, processId: string): Promise<void> {
  const { session, random, seen } = lane
  const timeoutMs = lane.timeoutMs()
  const way = random.pick(['entry', 'read'] as const)
  const handle: Process = session.handle(processId)
  const hostPid = handle.connection?.hostPid
  const attempted = await session.attempt(
    {
      ...{ lane: lane.index, kind: `foreign ${way}`, process: processId, timeoutMs, key, hostPid },
      expected: expected.state,
    },
    async (): Promise<Seen> => {
      const options = { timeoutMs }
      if (way === 'read') {
        const entry = await handle.state.read(key, options)
        return entry ? { records: intact(key, entry.data), version: entry.version.toString() } : {}
      }
      const entry = await handle.state.entry(key, options)
      return entry ? { records: intact(key, entry.value), version: entry.version.toString() } : {}
    },
    (found) => ({ seen: found }),
  )
  if (attempted.value?.version === undefined) return
  const version = BigInt(attempted.value.version)
  const before = seen.get(key) ?? 0n
  // A connection whose host has died may read its memory until it notices.
  if (version < before && (way === 'entry' || isAlive(hostPid))) {
    throw new Violation('versions do not go back', `${key}: operation ${attempted.id} found ${version} after ${before}`)
  }
  if (version > before) seen.set(key, version)
}

function isAlive(pid: number | undefined): boolean {
  try {
    return pid !== undefined && process.kill(pid, 0)
  } catch {
    return false
  }
}
