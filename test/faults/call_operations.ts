/** Calls of all kinds and sizes. What they return is checked here, how often they ran by the driver. */
import type { Process } from '../../src/client/process.js'
import { makeRecord, recordHeader } from './bytes.js'
import { expected, thrownCode } from './codes.js'
import type { Lane, Target } from './lane.js'
import { orderBytes, readOrder, writeOrder } from './order.js'
import { limits, processes, type ServedProcess } from './plan.js'
import type { Random } from './random.js'
import { callCodes, checkThrown } from './state_operations.js'
import { Violation } from './violation.js'

/** For a call without options that finds no connection. */
const connectMs = 30_000

/** How functions of `app.ts` are called in `functions.c`. */
const named = (target: Target, fn: string): string => (target.lane === 'native' ? `n_${fn}` : fn)

/** Of the data of an order: little more than nothing, around a slot and a page, and megabytes. */
function payloadBytes(random: Random): number {
  const size = random.weighted({ none: 1, small: 8, slot: 3, large: 3, huge: 1 })
  const least = { none: 0, small: recordHeader, slot: 3900, large: 10_000, huge: 1_000_000 }[size]
  const most = { none: 0, small: 1000, slot: 4300, large: 300_000, huge: 5_000_000 }[size]
  return random.integer(least, most)
}

export function payload(
  random: Random,
  id: number,
  rest: { readonly argument?: number; readonly key?: string } = {},
): Buffer {
  const bytes = payloadBytes(random)
  return writeOrder({ id, ...rest, ...(bytes === 0 ? {} : { data: makeRecord(id, bytes) }) })
}

function expectSame(what: string, id: number, sent: Uint8Array, received: Uint8Array): void {
  if (Buffer.compare(sent, received) === 0) return
  let at = 0
  while (at < sent.byteLength && at < received.byteLength && sent[at] === received[at]) at++
  throw new Violation(
    'results are those of the call',
    `${what} ${id} sent ${sent.byteLength} bytes and received ${received.byteLength}, which differ from ${at} on`,
  )
}

function about(lane: Lane, target: Target, kind: string, fn: string, timeoutMs: number, ids: readonly number[]) {
  const route = target.leased ? `lease ${target.lane}` : target.lane
  return {
    ...{ lane: lane.index, kind, process: target.process.id, timeoutMs, fn, ids, route },
    ...{ over: target.via.transport, expected: callCodes(target) },
  }
}

/** A call that gives back what it was given. */
export async function echo(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const which = random.weighted({ echo: 5, copy: 3, echoAgain: 2, raw: target.lane === 'native' ? 3 : 0 })
  const fn = which === 'raw' ? 'r_echo' : named(target, which)
  const way = random.weighted({ plain: 3, sync: 3, options: 3, allocated: session.transport === 'tcp' ? 0 : 2 })
  // Without options, the process's own deadline counts from when there is a connection.
  const timeoutMs = way === 'plain' ? limits.defaultTimeoutMs + connectMs : lane.timeoutMs()
  const id = session.takeIds(1)
  const input = payload(random, id)
  if (which === 'raw' && input.byteLength > 2 ** 20) return
  const idempotent = which === 'echoAgain' || (way !== 'plain' && random.chance(0.05))
  const { value } = await session.attempt(
    { ...about(lane, target, `call ${way}`, fn, timeoutMs, [id]), idempotent, expected: callCodes(target) },
    () => call(lane, target, fn, input, { timeoutMs, way, idempotent }),
  )
  if (value) expectSame(fn, id, input, value)
}

interface CallOptions {
  readonly timeoutMs: number
  readonly way: 'plain' | 'sync' | 'options' | 'allocated'
  readonly idempotent: boolean
}

async function call(lane: Lane, { via }: Target, fn: string, input: Buffer, options: CallOptions): Promise<Uint8Array> {
  const { timeoutMs, way, idempotent } = options
  const repeats = idempotent ? { idempotent } : {}
  switch (way) {
    case 'plain':
      return via.invoke(fn, input)
    case 'sync':
      return lane.session.blocking(() => via.invokeSync(fn, input, { timeoutMs, ...repeats }))
    case 'options': {
      const signal = lane.signal(0.3)
      return via.invoke(fn, input, { timeoutMs, ...repeats, ...(signal ? { signal } : {}) })
    }
    case 'allocated': {
      const memory = via.allocate(input.byteLength)
      const output = lane.random.chance(0.5) ? via.allocate(input.byteLength) : undefined
      try {
        memory.set(input)
        const worker = 'workers' in via ? { worker: 0 } : {}
        const result = await via.invoke(fn, memory, { timeoutMs, ...repeats, ...worker, ...(output ? { output } : {}) })
        return Buffer.from(result)
      } finally {
        for (const buffer of [memory, ...(output ? [output] : [])]) if (!via.closed) via.release(buffer)
      }
    }
  }
}

/** Without a byte. */
export async function nothing(lane: Lane, process: ServedProcess): Promise<void> {
  const target = lane.target(process)
  const fn = named(target, 'nothing')
  const timeoutMs = lane.timeoutMs()
  const { value, id } = await lane.session.attempt(
    about(lane, target, 'call empty', fn, timeoutMs, [lane.session.takeIds(1)]),
    () => target.via.invoke(fn, new Uint8Array(0), { timeoutMs }),
  )
  if (value) expectSame(fn, id, new Uint8Array(0), value)
}

/** Calls that take a while, longer than they may, or for ever. */
export async function linger(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const fn = named(target, random.chance(0.7) ? 'sleep' : 'spin')
  const timeoutMs = random.chance(0.4) ? random.integer(1, 150) : 3_000
  const argument = random.chance(0.15) ? 60_000 : random.integer(0, 120)
  const id = session.takeIds(1)
  const input = payload(random, id, { argument })
  const signal = lane.signal(0.3)
  const limitMs = argument === 60_000 ? Math.min(timeoutMs, 500) : timeoutMs
  const { value } = await session.attempt(about(lane, target, 'call slow', fn, limitMs, [id]), async () => {
    try {
      return await target.via.invoke(fn, input, { timeoutMs: limitMs, ...(signal ? { signal } : {}) })
    } catch (error) {
      // An aborted wait throws what the signal of its context says.
      if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
      checkThrown(error, ['ABORT_ERR', ...expected.thrown])
      return undefined
    }
  })
  if (value) expectSame(fn, id, input, value)
}

/** Functions that leave OS processes behind. */
export async function fork(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const fn = named(target, 'fork')
  const timeoutMs = random.integer(2_000, 5_000)
  const id = session.takeIds(1)
  const input = payload(random, id)
  const { value } = await session.attempt(about(lane, target, 'call fork', fn, timeoutMs, [id]), () =>
    target.via.invoke(fn, input, { timeoutMs }),
  )
  if (value) expectSame(fn, id, input, value)
}

/** Functions that throw, that end their worker, that are not there, and inputs that are too large. */
export async function fails(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const how = random.weighted({ fail: 5, unknown: 3, large: 1, die: 1 })
  const timeoutMs = random.integer(2_000, 5_000)
  const id = session.takeIds(1)
  const must = {
    fail: 'ERR_FUNCTION_THREW',
    unknown: 'ERR_FUNCTION_UNKNOWN',
    large: 'ERR_PAYLOAD_TOO_LARGE',
    die: 'ERR_WORKER_CRASHED',
  }[how]
  const fn = how === 'unknown' ? 'nowhere' : how === 'large' ? named(target, 'echo') : named(target, how)
  const input =
    how === 'large' ? Buffer.alloc(limits.maxContiguous + 1) : payload(random, id, { argument: random.integer(0, 1) })
  const { value } = await session.attempt(
    { ...about(lane, target, `call ${how}`, fn, timeoutMs, [id]), expected: [...callCodes(target), must] },
    () => target.via.invoke(fn, input, { timeoutMs }),
  )
  if (value) throw new Violation('results are those of the call', `${fn} ${id} returned, and should fail with ${must}`)
}

/** Functions that call functions. */
export async function nested(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const sync = target.lane === 'node' && random.chance(0.3)
  const fn = target.lane === 'native' ? 'n_nest' : sync ? 'nestSync' : 'nest'
  const callee = process.node && process.native ? random.pick(['echo', 'n_echo']) : process.node ? 'echo' : 'n_echo'
  const argument = fn === 'nest' ? random.integer(0, 2) : 0
  const timeoutMs = lane.timeoutMs()
  const count = argument + 2
  const first = session.takeIds(count)
  const ids = Array.from({ length: count }, (_, nth) => first + nth)
  const input = payload(random, first, { argument, key: callee })
  const signal = lane.signal(0.1)
  const { value } = await session.attempt(about(lane, target, 'call nested', fn, timeoutMs, ids), async () => {
    try {
      return await target.via.invoke(fn, input, { timeoutMs, ...(signal ? { signal } : {}) })
    } catch (error) {
      if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
      // Two calls within see of the innermost's failure that the one they called threw.
      checkThrown(error, [...expected.nested, 'ABORT_ERR', ...(argument > 0 ? ['ERR_FUNCTION_THREW'] : [])])
      return undefined
    }
  })
  // The innermost gives back the order it was given, of the last id.
  if (value) {
    const last = writeOrder({ id: first + count - 1, data: input.subarray(orderBytes + callee.length) })
    expectSame(fn, first, last.subarray(orderBytes), value.subarray(orderBytes))
  }
}

/** Functions that call functions of another process, or of their own from outside. */
export async function peer(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const found = lane.target(process)
  const target: Target =
    found.lane === 'node' ? found : { process, via: session.handle(process.id), leased: false, lane: 'node' }
  const callee = random.pick(processes)
  const fn = callee.node && (!callee.native || random.chance(0.5)) ? 'echo' : 'n_echo'
  const timeoutMs = lane.timeoutMs()
  const first = session.takeIds(2)
  const input = payload(random, first, { key: `${callee.id} ${fn}` })
  const signal = lane.signal(0.1)
  const { value } = await session.attempt(
    about(lane, target, 'call peer', 'peer', timeoutMs, [first, first + 1]),
    async () => {
      try {
        return await target.via.invoke('peer', input, { timeoutMs, ...(signal ? { signal } : {}) })
      } catch (error) {
        if ((error as { code?: string }).code !== 'ERR_FUNCTION_THREW') throw error
        checkThrown(error, expected.peer)
        return { thrown: thrownCode(error) }
      }
    },
    (result) => ('thrown' in result ? result : undefined),
  )
  if (value && !('thrown' in value)) {
    const last = writeOrder({ id: first + 1, data: readOrder(input).data })
    expectSame('peer', first, last, value)
  }
}

export async function many(lane: Lane, process: ServedProcess): Promise<void> {
  const { session, random } = lane
  const target = lane.target(process)
  const fn = named(target, 'echo')
  const count = random.integer(1, 60)
  const first = session.takeIds(count)
  const ids = Array.from({ length: count }, (_, nth) => first + nth)
  const timeoutMs = random.integer(2_000, 5_000)
  const size = random.chance(0.9) ? 1000 : 200_000
  const inputs = ids.map((id) => writeOrder({ id, data: makeRecord(id, random.integer(recordHeader, size)) }))
  const ordered = random.chance(0.5)
  const leaves = random.chance(0.2) ? random.integer(0, count) : count
  // Every call has this long from the moment it is sent; with few at a time some are sent late.
  const limitMs = timeoutMs * 2 + count * 100
  // Of both it takes the same.
  const via = target.via as Process
  await session.attempt(about(lane, target, 'calls many', fn, limitMs, ids), async () => {
    let taken = 0
    const options = { timeoutMs, inFlight: random.pick([1, 4, 32]) }
    if (ordered) {
      for await (const output of via.invokeMany<Uint8Array>(fn, inputs, options)) {
        expectSame(fn, ids[taken]!, inputs[taken]!, output)
        if (++taken > leaves) return
      }
    } else {
      const indices = new Set<number>()
      for await (const { index, output } of via.invokeMany<Uint8Array>(fn, inputs, { ...options, ordered: false })) {
        expectSame(fn, ids[index]!, inputs[index]!, output)
        indices.add(index)
        if (++taken > leaves) return
      }
      if (indices.size !== count)
        throw new Violation('results are those of the call', `${indices.size} of ${count} results of ${first}`)
    }
    if (taken !== count && taken <= leaves)
      throw new Violation('results are those of the call', `${taken} of ${count} results of ${first}`)
  })
}

/** A streaming call that gives back its input, chunk by chunk. */
export async function stream(lane: Lane, served: ServedProcess): Promise<void> {
  if (!served.node) return
  const { session, random } = lane
  const process: Process = session.handle(served.id)
  const timeoutMs = random.integer(3_000, 8_000)
  const id = session.takeIds(1)
  const sizes = Array.from({ length: random.integer(0, 6) }, () =>
    random.integer(1, random.chance(0.2) ? 600_000 : 5_000),
  )
  const chunks = [writeOrder({ id }), ...sizes.map((bytes, nth) => makeRecord(id + nth, Math.max(bytes, recordHeader)))]
  const signal = lane.signal(0.15)
  const leaves = random.chance(0.1)
  const target = { process: served, via: process, leased: false, lane: 'node' } as const
  // Streams travel over TCP, whatever calls take: they say nothing of that.
  const streaming = { ...about(lane, target, 'call stream', 'relay', timeoutMs, [id]), over: 'stream' }
  const { value } = await session.attempt(streaming, async () => {
    const received: Uint8Array[] = []
    for await (const chunk of process.invokeStream('relay', chunks, { timeoutMs, ...(signal ? { signal } : {}) })) {
      received.push(Uint8Array.from(chunk))
      if (leaves) return undefined
    }
    return received
  })
  if (value) expectSame('relay', id, Buffer.concat(chunks), Buffer.concat(value))
}
