import { setTimeout as later } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NativeConnection } from '../../src/native/binding.js'
import { bytes, fn, rejection, TestHost, text, thrown, invokeSync } from './support.js'

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
const long = 60_000

it('functions of a connection keep it', async () => {
  const host = await TestHost.start({ hotMs: 5 })
  const detached = async (): Promise<Pick<NativeConnection, 'invoke' | 'invokeSync'> & { index: number }> => {
    const connection = await host.connect('shm')
    const { invoke, invokeSync } = connection
    return { invoke, invokeSync, index: fn(connection, 'echo') }
  }
  const { invoke, invokeSync: blocking, index } = await detached()
  for (let round = 0; round < 5; ++round) {
    collect()
    await later(1)
    expect(text(await invoke(index, bytes('kept'), undefined, 0, long))).toBe('kept')
    expect(blocking(index, bytes('kept'), undefined, 0, long)).toBe(4)
  }
  await host.stop()
})

describe.each(['shm', 'tcp'] as const)('allocated memory over %s', (transport) => {
  let host: TestHost
  let connection: NativeConnection
  beforeAll(async () => {
    host = await TestHost.start({ hotMs: 5 })
    connection = await host.connect(transport)
  })
  afterAll(() => host.stop())

  it('is used in place for input and output', async () => {
    const echo = fn(connection, 'echo')
    const input = connection.allocate(100_000)
    const output = connection.allocate(200_000)
    input.fill(7)
    for (const result of [
      invokeSync(connection, echo, input, output, 0, long),
      await connection.invoke(echo, input, output, 0, long),
    ]) {
      expect(result.length).toBe(100_000)
      expect(result.every((byte) => byte === 7)).toBe(true)
      // A function that returns its input as it stands may have it delivered there.
      expect([input.buffer, output.buffer]).toContain(result.buffer)
    }
    const made = invokeSync(connection, fn(connection, 'output'), bytes('150000'), output, 0, long)
    expect(made.buffer).toBe(output.buffer)
    expect(made.length).toBe(150_000)
    connection.release(input)
    connection.release(output)
  })

  it('takes parts of a buffer', () => {
    const memory = connection.allocate(64 * 1024)
    memory.set(bytes('in the middle'), 1000)
    const result = invokeSync(
      connection,
      fn(connection, 'echo'),
      memory.subarray(1000, 1013),
      memory.subarray(4096),
      0,
      long,
    )
    expect(text(result)).toBe('in the middle')
    expect(result.buffer).toBe(memory.buffer)
    connection.release(memory)
  })

  it('gives results that fit nowhere memory of their own', () => {
    const memory = connection.allocate(100)
    const result = invokeSync(connection, fn(connection, 'output'), bytes('100000'), memory, 0, long)
    expect(result.length).toBe(100_000)
    expect(result.buffer).not.toBe(memory.buffer)
    connection.release(memory)
  })

  it('keeps results that were copied', () => {
    const echo = fn(connection, 'echo')
    const first = invokeSync(connection, echo, bytes('first'), undefined, 0, long)
    invokeSync(connection, echo, bytes('other'), undefined, 0, long)
    expect(text(first)).toBe('first')
  })

  it('cannot be transferred, only cloned', () => {
    const memory = connection.allocate(64)
    try {
      // Node 20 clones what cannot be transferred, later versions throw.
      structuredClone(memory, { transfer: [memory.buffer as ArrayBuffer] })
    } catch (error) {
      expect((error as Error).name).toBe('DataCloneError')
    }
    expect(memory.length).toBe(64)
    expect(structuredClone(memory).length).toBe(64)
    connection.release(memory)
  })

  it('is empty after release', () => {
    const memory = connection.allocate(64)
    const part = memory.subarray(8)
    connection.release(memory)
    expect(memory.length).toBe(0)
    expect(part.length).toBe(0)
    expect(thrown(() => connection.release(memory))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(thrown(() => connection.release(new Uint8Array(8)))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
  })

  it('is not released under a call', async () => {
    const memory = connection.allocate(64)
    memory.set(bytes('30'))
    const promise = connection.invoke(fn(connection, 'timer'), memory.subarray(0, 2), undefined, 0, long)
    expect(thrown(() => connection.release(memory))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    await promise
    connection.release(memory)
  })

  it('checks sizes', () => {
    for (const size of [0, -1, 1.5, 2 ** 33, Number.NaN]) expect(() => connection.allocate(size)).toThrow(RangeError)
    expect(() => connection.allocate('8' as never)).toThrow(TypeError)
  })

  it('goes back when it is dropped', async () => {
    // Several times the window of a shm connection: only works when dropped memory is used again.
    for (let i = 0; i < 40; i += 1) {
      connection.allocate(8 << 20)
      collect()
      await later(0)
    }
    connection.release(connection.allocate(8 << 20))
  })

  it('is empty after close, and nothing else works then', async () => {
    const other = await host.connect(transport)
    const echo = fn(other, 'echo')
    const memory = other.allocate(1 << 20)
    const promise = other.invoke(fn(other, 'timer'), bytes('100000'), memory, 0, long)
    other.close()
    expect(memory.length).toBe(0)
    expect(await rejection(promise)).toMatchObject({ code: 'ERR_CONNECTION_CLOSED' })
    other.close()
    expect(other.ended[0]).toBe(1)
    expect(other.inFlight).toBe(0)
    expect(other.info.process).toBe(host.name)
    for (const use of [
      () => other.invoke(echo, bytes(''), undefined, 0, 1),
      () => other.invokeSync(echo, bytes(''), undefined, 0, 1),
      () => other.resolve('echo', 1),
      () => other.resolveSync('echo', 1),
      () => other.cancel(1n),
      () => other.allocate(8),
      () => other.release(memory),
      () => other.openStream(0, 0, 1, { chunk() {}, room() {}, end() {} }),
      () => other.sendChunk(1n, bytes(''), true),
      () => other.consumed(1n, 1),
      () => other.stateGet('k', 1),
      () => other.stateSet('k', bytes(''), { timeoutMs: 1 }),
      () => other.stateAppend('k', bytes(''), 1),
      () => other.stateDelete('k', undefined, 1),
      () => other.stateStat('k', 1),
      () => other.stateRead('k', 0, 1, 1),
      () => other.stateKeys('', '', 1, 1),
      () => other.lock('k', 'read', 1),
      () => other.unlock(1n, 1),
      () => other.admin(1, '', 1),
      () => other.onLost(() => undefined),
    ]) {
      expect(thrown(use)).toMatchObject({ code: 'ERR_CONNECTION_CLOSED' })
    }
  })
})
