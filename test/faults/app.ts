/** The functions in TypeScript that the campaign calls. Each notes in the journal that it runs; `functions.c` has the native ones. */
import { spawn } from 'node:child_process'
import { setTimeout as delay } from 'node:timers/promises'
import { defineFunction, type Context } from 'praas'
import { childSeconds } from './forks.js'
import { events, Journal, journalVariable } from './journal.js'
import { lockWrite, operations, readOrder, statuses, writeAnswer, writeOrder, type GivenOrder } from './order.js'

const journal = new Journal(process.env[journalVariable] ?? '/dev/null')

/** Runs what an order is about, between two entries of the journal. */
function noted<Result>(input: Uint8Array, run: (order: GivenOrder) => Result): Result {
  const order = readOrder(input)
  journal.note(order.id, events.begin)
  const result = run(order)
  if (result instanceof Promise) return result.finally(() => journal.note(order.id, events.end)) as Result
  journal.note(order.id, events.end)
  return result
}

export const echo = (input: Uint8Array): Uint8Array => noted(input, () => input)

export const echoAgain = defineFunction({ idempotent: true }, (input: Uint8Array) => noted(input, () => input))

/** The same in memory of the result. */
export const copy = (input: Uint8Array, ctx: Context): Uint8Array =>
  noted(input, () => {
    const output = ctx.output(input.byteLength)
    output.set(input)
    return output
  })

/** Without an input there is nothing to note. */
export const nothing = (input: Uint8Array): Uint8Array => input

/** For as many milliseconds as the argument says, giving way to others. */
export const sleep = (input: Uint8Array, ctx: Context): Promise<Uint8Array> =>
  noted(input, async ({ argument }) => {
    await delay(argument, undefined, { signal: ctx.signal })
    return input
  })

/** The same without giving way. */
export const spin = (input: Uint8Array): Uint8Array =>
  noted(input, ({ argument }) => {
    const end = performance.now() + argument
    while (performance.now() < end);
    return input
  })

export const fail = (input: Uint8Array): Uint8Array =>
  noted(input, ({ id }) => {
    throw new RangeError(`as call ${id} was told to`)
  })

/** Ends its worker. */
export const die = (input: Uint8Array): Uint8Array =>
  noted(input, ({ argument }) => {
    if (argument === 0) process.exit(3)
    process.kill(process.pid, 'SIGKILL')
    for (;;);
  })

/** Leaves a child behind. */
export const fork = (input: Uint8Array): Uint8Array =>
  noted(input, ({ id }) => {
    const child = spawn('sleep', [String(childSeconds)], { stdio: 'ignore' })
    child.on('error', () => undefined)
    child.unref()
    journal.note(id, events.forked, 0, child.pid)
    return input
  })

/** Calls another function with the next id: the argument says how deep that goes on. */
export const nest = (input: Uint8Array, ctx: Context): Promise<Uint8Array> =>
  noted(input, async ({ id, argument, key, data }) => {
    const order = { id: Number(id) + 1, data }
    return argument > 0
      ? ctx.invoke('nest', writeOrder({ ...order, argument: argument - 1, key }))
      : ctx.invoke(key, writeOrder(order))
  })

/** The same, blocking the worker. */
export const nestSync = (input: Uint8Array, ctx: Context): Uint8Array =>
  noted(input, ({ id, key, data }) => ctx.invokeSync(key, writeOrder({ id: Number(id) + 1, data })))

/** Calls a function of a process as its clients do, with the next id. The key names both. */
export const peer = (input: Uint8Array, ctx: Context): Promise<Uint8Array> =>
  noted(input, async ({ id, key, data }) => {
    const [processId = '', fn = ''] = key.split(' ')
    const callee = await ctx.process(processId)
    const timeoutMs = Math.max(1, ctx.remainingMs)
    return callee.invoke(fn, writeOrder({ id: Number(id) + 1, data }), { timeoutMs, signal: ctx.signal })
  })

/** Chunks as they come; the first is an order. */
export const relay = defineFunction({ stream: true }, async function* (chunks) {
  let first = true
  for await (const chunk of chunks) {
    if (first) journal.note(readOrder(chunk).id, events.begin)
    first = false
    yield chunk
  }
})

/** Holds a lock and notes since when and until when. */
export const lock = (input: Uint8Array, ctx: Context): Promise<Uint8Array> =>
  noted(input, async ({ id, argument, operation, key }) => {
    const mode = argument >= lockWrite ? 'write' : 'read'
    const held = await ctx.state.lock(key, mode)
    const which = operation + (mode === 'write' ? 256 : 0)
    journal.note(id, events.locked, which)
    await delay(argument % lockWrite)
    journal.note(id, events.unlocking, which)
    await held.release()
    return input
  })

/** One operation on state. */
export const state = (input: Uint8Array, ctx: Context): Uint8Array =>
  noted(input, (order) => {
    try {
      return operate(order, ctx)
    } catch (error) {
      const { code } = error as { code?: string }
      if (code === 'ERR_STATE_VERSION') return writeAnswer(statuses.mismatch, 0n, true)
      if (code === 'ERR_STATE_MEMORY') return writeAnswer(statuses.memory, 0n, false)
      throw error
    }
  })

function operate({ operation, argument, version, key, data }: GivenOrder, ctx: Context): Buffer {
  const { state } = ctx
  const condition = version === undefined ? {} : { ifVersion: version }
  switch (operation) {
    case operations.get: {
      const entry = state.entry(key)
      return entry
        ? writeAnswer(statuses.done, entry.version, true, 0, entry.data)
        : writeAnswer(statuses.absent, 0n, false)
    }
    case operations.set:
      return writeAnswer(statuses.done, state.set(key, data, condition), false)
    case operations.append:
      return writeAnswer(statuses.done, state.append(key, data), false)
    case operations.patch:
      return writeAnswer(statuses.done, state.set(key, data, { offset: argument }), false)
    case operations.delete:
      return writeAnswer(statuses.done, 0n, state.delete(key, condition))
    case operations.increment: {
      const counter = state.array(key, BigInt64Array, 1)
      const before = Atomics.add(counter, 0, BigInt(argument))
      return writeAnswer(statuses.done, 0n, true, Number(before) + argument)
    }
    case operations.stat: {
      const found = state.stat(key)
      return found
        ? writeAnswer(statuses.done, found.version, true, found.byteLength)
        : writeAnswer(statuses.absent, 0n, false)
    }
    case operations.view: {
      const view = state.view(key)
      return view ? writeAnswer(statuses.done, 0n, true, 0, view) : writeAnswer(statuses.absent, 0n, false)
    }
    case operations.list: {
      for (const info of state.keys({ prefix: key })) {
        if (info.key === key) return writeAnswer(statuses.done, info.version, true, info.byteLength)
      }
      return writeAnswer(statuses.absent, 0n, false)
    }
    case operations.publish:
      return writeAnswer(statuses.done, 0n, true, state.publish(key, { capacity: argument }))
    case operations.unpublish:
      return writeAnswer(statuses.done, 0n, state.unpublish(key))
    default:
      throw new Error(`there is no operation ${operation}`)
  }
}
