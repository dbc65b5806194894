import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Cluster } from '../../src/client/cluster.js'
import type { Process } from '../../src/client/process.js'
import { ArgumentError, PayloadError, ProcessError } from '../../src/errors.js'
import { failureOf, startCluster, type FixtureApp, type TestCluster } from '../support/cluster.js'

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ workers: 2, maxContiguous: '8 MiB' })
})
afterAll(() => started.close())

describe.each(['shm', 'tcp'] as const)('calls over %s', (transport) => {
  let cluster: Cluster
  let process: Process
  let app: ReturnType<typeof functionsOf>
  const functionsOf = (of: Process) => of.functions<FixtureApp>()

  beforeAll(async () => {
    await started.cluster.process('calls')
    cluster = await connect(undefined, { runtimeDir: started.directory.path, transport })
    process = await cluster.process('calls', { create: false })
    app = functionsOf(process)
  })
  afterAll(() => cluster.close())

  it('take the transport that was asked for', () => {
    expect(process.transport).toBe(transport)
    expect(process.connection).toMatchObject({ transport, maxContiguousBytes: 8 * 2 ** 20 })
  })

  it.each([0, 1, 4095, 4096, 4097, 65_536, 1 << 20, 8 << 20])('bring %i bytes back unchanged', async (byteLength) => {
    const input = new Uint8Array(byteLength).map((_, index) => index * 31)
    const output = await process.invoke('echo', input)
    expect(Buffer.compare(output, input)).toBe(0)
    expect(Buffer.compare(process.invokeSync('echo', input), input)).toBe(0)
  })

  it.each([-1, 0, 20])('poll as long as they are told to: %i ms', async (hotMs) => {
    await using polling = await connect(undefined, { runtimeDir: started.directory.path, transport, hotMs })
    const called = await polling.process('calls', { create: false })
    expect(called.invokeSync('echo', Buffer.from('hot'))).toHaveLength(3)
    expect(await called.invoke('echo', Buffer.from('hot'))).toHaveLength(3)
  })

  it('refuse a byte more than fits, before it is sent', async () => {
    const input = new Uint8Array((8 << 20) + 1)
    expect(await failureOf(process.invoke('echo', input))).toMatchObject({ code: 'ERR_PAYLOAD_TOO_LARGE' })
    expect(() => process.invokeSync('echo', input)).toThrow(PayloadError)
    const failure = await failureOf(process.invoke('filled', Buffer.from(String((8 << 20) + 1))))
    expect(failure.code).toBe('ERR_PAYLOAD_TOO_LARGE')
    expect((await process.invoke('filled', Buffer.from(String(8 << 20)))).byteLength).toBe(8 << 20)
  })

  it('give results that were built in place, or a part of them', async () => {
    expect(Array.from(await process.invoke('filled', Buffer.from('5')))).toEqual([7, 7, 7, 7, 7])
    expect(Array.from(await process.invoke('shortened'))).toEqual([1, 1, 1])
    const large = await process.invoke('filled', Buffer.from('100000'))
    expect(large.every((byte) => byte === 7)).toBe(true)
  })

  it('encode as functions declare', async () => {
    expect(await app.add({ a: 2, b: 3 })).toBe(5)
    expect(await app.clone({ at: new Date(7), set: new Set([1]) })).toEqual({ at: new Date(7), set: new Set([1]) })
    expect(await app.doubled(new Float64Array([1.5, -2]))).toEqual(new Float64Array([3, -4]))
    expect(process.invokeSync('add', { a: 1, b: 1 })).toBe(2)
    expect((await process.invoke('nothing')).byteLength).toBe(0)
    expect(await process.invoke('echo', [1, 2], { codec: 'json' })).toEqual([1, 2])
    expect(await process.signature('doubled')).toEqual({
      stream: false,
      idempotent: false,
      input: 'Float64Array',
      output: 'Float64Array',
    })
  })

  it('use memory that was allocated for them', async () => {
    const input = process.allocate(100_000)
    input.fill(9)
    const output = process.allocate(100_000)
    const result = await process.invoke('echo', input, { output })
    expect(result.byteLength).toBe(100_000)
    expect(result.every((byte) => byte === 9)).toBe(true)
    expect(process.invokeSync('echo', input.subarray(0, 8), { output }).byteLength).toBe(8)
    process.release(input)
    process.release(output)
    expect(() => process.allocate(0)).toThrow(ArgumentError)
  })

  it('run many at a time', async () => {
    const inputs = Array.from({ length: 300 }, (_, index) => ({ a: index, b: 1 }))
    const sums: number[] = []
    for await (const sum of process.invokeMany<number>('add', inputs, { inFlight: 64 })) sums.push(sum)
    expect(sums).toEqual(inputs.map(({ a }) => a + 1))
    const seen = new Set<number>()
    for await (const { index, output } of process.invokeMany<number>('add', inputs, { inFlight: 64, ordered: false })) {
      expect(output).toBe(index + 1)
      seen.add(index)
    }
    expect(seen.size).toBe(300)
  })

  it('keep small results apart, more at a time than there are places for them', async () => {
    const inputOf = (call: number): Uint8Array => new Uint8Array(call % 66).fill(call)
    const results = await Promise.all(
      Array.from({ length: 1000 }, async (_, call) => {
        const result = await process.invoke('echo', inputOf(call))
        // Others are settled while this one is looked at.
        const other = process.invokeSync('echo', inputOf(call + 1))
        expect(other).toEqual(inputOf(call + 1))
        return result
      }),
    )
    expect(results).toEqual(Array.from({ length: 1000 }, (_, call) => inputOf(call)))
  })

  it('tell the function about itself', async () => {
    const facts = await app.who(undefined, { timeoutMs: 5_000 })
    expect(facts).toMatchObject({ processId: 'calls', functionName: 'who', depth: 0 })
    expect(facts.remainingMs).toBeGreaterThan(0)
    expect(facts.remainingMs).toBeLessThanOrEqual(5_000)
    expect(facts.environment).not.toContain('PRAAS_WORKER_FD')
    expect(facts.environment).not.toContain('PRAAS_TOKEN')
  })

  it('name functions that are not there, and names that cannot be', async () => {
    const unknown = await failureOf(process.invoke('nowhere'))
    expect(unknown.code).toBe('ERR_FUNCTION_UNKNOWN')
    expect(unknown.message).toContain('nowhere')
    for (const name of ['', 'x'.repeat(256)]) {
      expect(await failureOf(process.invoke(name))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    }
    expect(() => process.invokeSync('nowhere')).toThrow(/nowhere/)
  })

  it('refuse wrong options and inputs', async () => {
    for (const options of [
      { timeout: 5 },
      { timeoutMs: 0 },
      { signal: {} },
      { idempotent: 1 },
      { codec: 'yaml' },
      { output: [] },
    ]) {
      expect(await failureOf(process.invoke('echo', undefined, options as never))).toMatchObject({
        code: 'ERR_ARGUMENT_INVALID',
      })
    }
    expect(await failureOf(process.invoke('echo', 'text'))).toMatchObject({ code: 'ERR_PAYLOAD_CODEC' })
    expect(await failureOf(process.invoke('upper'))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
  })
})

describe('a polling worker', () => {
  it('goes on with what it runs while more comes than the process has room for', async () => {
    const full = { workers: 1, concurrency: 32, backlog: 16, hotMs: -1 }
    const process = await started.cluster.process('full', full)
    await process.invoke('sleep', 1)
    for (let round = 0; round < 20; ++round) {
      const calls = Array.from({ length: 24 }, async () => process.invoke('sleep', 50, { timeoutMs: 20_000 }))
      expect(await Promise.all(calls)).toHaveLength(24)
    }
    await process.stop()
  })
})

describe('handles', () => {
  it('do not work when closed', async () => {
    const process = await started.cluster.process('calls')
    process.close()
    process.close()
    expect(process.closed).toBe(true)
    expect(await failureOf(process.invoke('echo'))).toMatchObject({ code: 'ERR_PROCESS_CLOSED' })
    expect(await failureOf(process.state.get('x'))).toMatchObject({ code: 'ERR_PROCESS_CLOSED' })
    expect(() => process.invokeSync('echo')).toThrow(ProcessError)
  })

  it('fail what is in flight when they are closed', async () => {
    const process = await started.cluster.process('calls')
    await process.invoke('echo')
    const call = failureOf(process.invoke('sleep', 60_000))
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    process.close()
    expect((await call).code).toMatch(/ERR_CONNECTION_CLOSED|ERR_PROCESS_CLOSED/)
  })

  it('of processes that are not there are refused', async () => {
    expect(await failureOf(started.cluster.process('absent', { create: false }))).toMatchObject({
      code: 'ERR_PROCESS_UNKNOWN',
    })
    expect(await failureOf(started.cluster.process('x'.repeat(256)))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(await failureOf(started.cluster.process('x', { wrokers: 2 } as never))).toMatchObject({
      code: 'ERR_ARGUMENT_INVALID',
    })
  })

  it('are not taken for promises', async () => {
    const process = await started.cluster.process('calls')
    const stub = await Promise.resolve(process.functions<FixtureApp>())
    expect(await stub.add({ a: 1, b: 2 })).toBe(3)
    process.close()
  })
})
