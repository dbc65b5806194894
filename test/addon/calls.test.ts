import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NativeConnection } from '../../src/native/binding.js'
import { bytes, fn, parsed, rejection, TestHost, text, thrown, invokeSync } from './support.js'

const long = 60_000
const pattern = (size: number): Uint8Array => Uint8Array.from({ length: size }, (_, i) => (i * 31 + (i >> 8)) & 255)

describe.each(['shm', 'tcp'] as const)('calls over %s', (transport) => {
  let host: TestHost
  let connection: NativeConnection
  beforeAll(async () => {
    host = await TestHost.start({ workers: 2, hotMs: 5, concurrency: 8, graceMs: 30_000 })
    connection = await host.connect(transport)
  })
  afterAll(() => host.stop())

  const call = (name: string, input: unknown = '', timeoutMs = long): Promise<Uint8Array> =>
    connection.invoke(fn(connection, name), bytes(input), undefined, 0, timeoutMs)
  const callSync = (name: string, input: unknown = '', timeoutMs = long): Uint8Array =>
    invokeSync(connection, fn(connection, name), bytes(input), undefined, 0, timeoutMs)

  it('describes the server', () => {
    expect(connection.info).toMatchObject({ process: host.name, transport, hostPid: host.pid })
    expect(connection.info.maxContiguous).toBeGreaterThan(0)
    expect(connection.ended[0]).toBe(0)
    expect(connection.inFlight).toBe(0)
  })

  // Each of them would wait for its connection's rest, two seconds: the whole then takes longer than a test may.
  it("sends at once what another connection's reply sets off", async () => {
    const [first, second] = [await host.connect(transport, { spinUs: 1e6 }), await host.connect(transport)]
    const echo = fn(first, 'echo')
    for (let round = 0; round < 100; round++) {
      await first.invoke(echo, bytes('one'), undefined, 0, long)
      expect(text(await second.invoke(echo, bytes('two'), undefined, 0, long))).toBe('two')
    }
  })

  it('resolves names', async () => {
    await expect(connection.resolve('echo', long)).resolves.toEqual({ index: expect.any(Number) as number, flags: 0 })
    await expect(connection.resolve('stream', long)).resolves.toMatchObject({ flags: 1 })
    expect(connection.resolveSync('echo', long)).toEqual(await connection.resolve('echo', long))
    await expect(connection.resolve('nobody', long)).rejects.toMatchObject({ code: 'ERR_FUNCTION_UNKNOWN' })
    expect(thrown(() => connection.resolveSync('nobody', long))).toMatchObject({ code: 'ERR_FUNCTION_UNKNOWN' })
  })

  it.each(['echo', 'echoAsync', 'echoLater', 'echoTicked'])('runs %s', async (name) => {
    expect(text(await call(name, 'hello'))).toBe('hello')
    expect(text(callSync(name, 'hello'))).toBe('hello')
  })

  it.each([0, 1, 64, 4095, 4096, 4097, 65_536, 1_000_001, 8 << 20])('carries %i bytes both ways', async (size) => {
    const input = pattern(size)
    const echo = fn(connection, 'echo')
    expect(Buffer.compare(await connection.invoke(echo, input, undefined, 0, long), input)).toBe(0)
    expect(Buffer.compare(invokeSync(connection, echo, input, undefined, 0, long), input)).toBe(0)
  })

  it.each([0, 1, 4096, 4097, 1 << 20])('gives a result of %i bytes built in place', async (size) => {
    const result = await call('output', String(size))
    expect(result.length).toBe(size)
    for (let i = 0; i < size; i += 4096) expect(result[i]).toBe((i / 4096) & 255)
  })

  it('gives an empty result for undefined', async () => {
    expect(await call('nothing')).toEqual(new Uint8Array(0))
  })

  it('tells the function about the call', async () => {
    const info = parsed(await call('info', '', 5_000)) as { remainingMs: number }
    expect(info).toMatchObject({ depth: 0, stream: false, process: host.name })
    expect(info.remainingMs).toBeGreaterThan(0)
    expect(info.remainingMs).toBeLessThanOrEqual(5_000)
  })

  it('runs many calls at once, each with its own answer', async () => {
    const echo = fn(connection, 'echoLater')
    const ids = new Set<bigint>()
    const calls = Array.from({ length: 200 }, (_, i) => {
      const promise = connection.invoke(echo, bytes(`call ${i}`), undefined, 0, long)
      ids.add(connection.lastCall)
      return promise
    })
    expect(ids.size).toBe(200)
    const results = await Promise.all(calls)
    results.forEach((result, i) => expect(text(result)).toBe(`call ${i}`))
    expect(connection.inFlight).toBe(0)
  })

  it('answers other calls while one blocks', async () => {
    const slow = call('timer', '30')
    expect(text(callSync('echo', 'meanwhile'))).toBe('meanwhile')
    expect(text(await slow)).toBe('done')
  })

  it('reports errors of functions', async () => {
    expect(await rejection(call('fail', '{"name":"E"}'))).toMatchObject({
      code: 'ERR_FUNCTION_THREW',
      message: '{"name":"E"}',
    })
    expect(await rejection(call('throws'))).toMatchObject({ code: 'ERR_FUNCTION_THREW' })
    expect(thrown(() => callSync('throws')).message).toContain('thrown through the hook')
    expect(await rejection(call('text'))).toMatchObject({ code: 'ERR_FUNCTION_RESULT' })
    expect(text(callSync('echo', 'still alive'))).toBe('still alive')
  })

  it('cancels', async () => {
    const promise = connection.invoke(fn(connection, 'untilCancelled'), bytes(''), undefined, 0, long)
    const id = connection.lastCall
    // The function must have been started, or the call is cancelled in the queue and never runs.
    await call('echo')
    connection.cancel(id)
    expect(await rejection(promise)).toMatchObject({ code: 'ERR_INVOCATION_CANCELLED' })
  })

  it('calls functions of the own process', async () => {
    expect(text(await call('nested', 'echoLater inner'))).toBe('inner')
    expect(text(await call('nested', 'nested nested echo deep'))).toBe('deep')
    expect(text(callSync('nestedSync', 'echo inner'))).toBe('inner')
    expect(parsed(await call('nested', 'info'))).toMatchObject({ depth: 1 })
    expect((await rejection(call('nested', 'throws'))).message).toContain('thrown through the hook')
  })

  it('ends calls at their deadline', async () => {
    expect(await rejection(call('untilCancelled', '', 50))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
    expect(thrown(() => callSync('untilCancelled', '', 50))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
  })

  it('checks arguments', () => {
    const echo = fn(connection, 'echo')
    const invoke = connection.invoke.bind(connection) as (...values: unknown[]) => unknown
    for (const [values, name] of [
      [['0', bytes(''), undefined, 0, 1], 'fn'],
      [[-1, bytes(''), undefined, 0, 1], 'fn'],
      [[echo, 'text', undefined, 0, 1], 'input'],
      [[echo, new Float64Array(1), undefined, 0, 1], 'input'],
      [[echo, new ArrayBuffer(1), undefined, 0, 1], 'input'],
      [[echo, bytes(''), new Uint8Array(8), 0, 1], 'output'],
      [[echo, bytes(''), undefined, 1.5, 1], 'flags'],
      [[echo, bytes(''), undefined, 0, -1], 'timeoutMs'],
      [[echo, bytes(''), undefined, 0], 'timeoutMs'],
    ] as const) {
      expect(thrown(() => invoke(...values))).toMatchObject({
        code: 'ERR_ARGUMENT_INVALID',
        message: expect.stringContaining(name) as string,
      })
    }
    expect(thrown(() => connection.cancel(5 as never))).toBeInstanceOf(TypeError)
  })

  it('refuses a this that is none', () => {
    const { cancel, close } = connection
    const info = Object.getOwnPropertyDescriptor(Object.getPrototypeOf(connection), 'info')?.get
    for (const value of [undefined, null, 5, {}, [], Object.create(connection) as object]) {
      expect(thrown(() => close.call(value as never))).toBeInstanceOf(TypeError)
      expect(thrown(() => cancel.call(value as never, 1n))).toBeInstanceOf(TypeError)
      expect(thrown(() => info?.call(value) as unknown)).toBeInstanceOf(TypeError)
    }
    const Connection = connection.constructor as new () => unknown
    expect(thrown(() => new Connection())).toBeInstanceOf(TypeError)
    expect(text(callSync('echo', 'untouched'))).toBe('untouched')
  })

  it('keeps the event loop alive only while something is in flight', async () => {
    const echo = fn(connection, 'echo')
    for (let i = 0; i < 5; i += 1) {
      await connection.invoke(echo, bytes('x'), undefined, 0, long)
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(connection.inFlight).toBe(0)
  })
})
