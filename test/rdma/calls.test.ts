/** Calls over a device of this machine: client and process host on both ends of it. */
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import type { Process } from '../../src/client/process.js'
import type { FunctionError } from '../../src/errors.js'
import { failureOf, startCluster, type FixtureApp, type TestCluster } from '../support/cluster.js'
import { clientForTest, pattern, sizes, transport, usableDevice } from './support.js'

let started: TestCluster
let served: Process

beforeAll(async () => {
  usableDevice()
  // Functions that are aborted have the time they need to say so.
  started = await startCluster({ transport, workers: 2, graceMs: '60 s' })
  served = await started.cluster.process('calls')
})
afterAll(() => started?.close())

it('takes the transport that was asked for', () => {
  expect(served.transport).toBe(transport)
  expect(served.connection).toMatchObject({ transport })
})

describe('payloads', () => {
  it.each(sizes)('of %d bytes come back as they were sent', async (byteLength) => {
    for (let seed = 0; seed < 3; seed++) {
      const input = pattern(byteLength, seed)
      expect(Buffer.from(await served.invoke('echo', input)).equals(input)).toBe(true)
      expect(Buffer.from(served.invokeSync('echo', input)).equals(input)).toBe(true)
    }
  })

  it('may be small for a large result, and large for a small one', async () => {
    const large = await served.invoke('filled', Buffer.from(String(1 << 20)))
    expect(Buffer.from(large).equals(Buffer.alloc(1 << 20, 7))).toBe(true)
    expect(await served.invoke('nothing', pattern(1 << 20))).toHaveLength(0)
  })

  it('lie in memory of the connection', async () => {
    for (const byteLength of [1, 4096, 1 << 20]) {
      const [input, output] = [served.allocate(byteLength), served.allocate(byteLength)]
      input.set(pattern(byteLength))
      const result = await served.invoke('echo', input, { output })
      expect(Buffer.from(result).equals(pattern(byteLength))).toBe(true)
      // What was given for it is where it is; and the input is still that of the caller.
      expect(result.buffer).toBe(output.buffer)
      expect(Buffer.from(input).equals(pattern(byteLength))).toBe(true)
      served.release(input)
      served.release(output)
    }
  })

  it('come back so with checksums, too', async () => {
    const client = await clientForTest(undefined, { runtimeDir: started.directory.path, transport, checksum: true })
    const checked = await client.process('calls', { create: false })
    expect(checked.transport).toBe(transport)
    for (const byteLength of sizes) {
      const input = pattern(byteLength, 5)
      expect(Buffer.from(await checked.invoke('echo', input)).equals(input)).toBe(true)
    }
  })
})

describe('one connection', () => {
  it('has many calls in flight, of all sizes', async () => {
    const lengthOf = (index: number): number => sizes[index % sizes.length] ?? 0
    const calls = Array.from({ length: 128 }, (_, index) => served.invoke('echo', pattern(lengthOf(index), index)))
    for (const [index, result] of (await Promise.all(calls)).entries()) {
      expect(Buffer.from(result).equals(pattern(lengthOf(index), index)), `call ${index}`).toBe(true)
    }
  })

  it('has more calls waiting than there is room for', async () => {
    const inputs = Array.from({ length: 1_500 }, (_, index) => pattern(8, index))
    let index = 0
    for await (const result of served.invokeMany('echo', inputs, { inFlight: 512 })) {
      expect(Buffer.from(result).equals(pattern(8, index++))).toBe(true)
    }
    expect(index).toBe(inputs.length)
  })

  it('carries state', async () => {
    for (const byteLength of [0, 100, 1 << 20]) {
      await served.state.set('value', pattern(byteLength))
      expect(Buffer.from((await served.state.get('value')) ?? []).equals(pattern(byteLength))).toBe(true)
    }
    const app = served.functions<FixtureApp>()
    expect(await app.increment(5)).toBe(5)
    await served.state.delete('value')
    expect(await served.state.get('value')).toBeUndefined()
  })

  it('carries streams while it carries calls', async () => {
    const blocks = Array.from({ length: 16 }, (_, block) => pattern(100_000, block))
    async function* source(): AsyncGenerator<Uint8Array> {
      for (const block of blocks) {
        const input = pattern(64)
        expect(Buffer.from(await served.invoke('echo', input)).equals(input)).toBe(true)
        yield block
      }
    }
    const chunks: Uint8Array[] = []
    for await (const chunk of served.invokeStream('relay', source())) chunks.push(Buffer.from(chunk))
    expect(Buffer.concat(chunks).equals(Buffer.concat(blocks))).toBe(true)
  })

  it('carries calls that call', async () => {
    expect(await served.functions<FixtureApp>().countdown(5)).toBe(5)
  })
})

describe('calls that fail', () => {
  it('tell what was thrown', async () => {
    const thrown = { code: 'ERR_FUNCTION_THREW', remote: { name: 'RangeError', code: 'E_ROW' } }
    expect(await failureOf(served.invoke('throwsError'))).toMatchObject(thrown)
    expect(() => served.invokeSync('throwsError')).toThrow(/RangeError: no such row/)
  })

  it('tell all of it, though it is more than a message takes', async () => {
    for (let round = 0; round < 3; round++) {
      const { code, remote } = (await failureOf(served.invoke('throwsLong', Buffer.from('20000')))) as FunctionError
      expect(code).toBe('ERR_FUNCTION_THREW')
      expect(remote?.message).toHaveLength(8_193)
      expect(remote?.stack?.match(/descend/g)?.length).toBeGreaterThan(100)
    }
  })

  it('at their deadline end the function', async () => {
    const failure = await failureOf(served.invoke('sleep', 60_000, { timeoutMs: 3_000, codec: 'json' }))
    expect(failure.code).toBe('ERR_INVOCATION_TIMEOUT')
    await vi.waitUntil(async () => (await served.state.get('aborted')) !== undefined, { timeout: 30_000 })
    expect(Buffer.from((await served.state.get('aborted')) ?? []).toString()).toBe('ERR_INVOCATION_TIMEOUT')
  })

  it('because their caller gave up leave the connection as it was', async () => {
    const abort = new AbortController()
    const running = served.invoke('sleep', 60_000, { signal: abort.signal, codec: 'json' })
    abort.abort(new Error('no longer needed'))
    expect((await failureOf(running)).message).toBe('no longer needed')
    expect(served.transport).toBe(transport)
  })

  it('because there is no such function say so', async () => {
    expect((await failureOf(served.invoke('nowhere'))).code).toBe('ERR_FUNCTION_UNKNOWN')
  })

  it('are followed by others that do not', async () => {
    for (const byteLength of sizes) {
      expect(Buffer.from(await served.invoke('echo', pattern(byteLength))).equals(pattern(byteLength))).toBe(true)
    }
  })
})
