import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Cluster } from '../../src/client/cluster.js'
import type { Process } from '../../src/client/process.js'
import { FunctionError, PayloadError } from '../../src/errors.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, connectBy, libraries, pattern, say, transports, uint32 } from '../support/native.js'

const MiB = 2 ** 20
/** Around every border: alignment, slot, page, pages, and what is sent in one piece. */
const sizes = [
  0, 1, 15, 16, 17, 63, 64, 65, 4095, 4096, 4097, 8191, 8192, 8193, 65_535, 65_536, 65_537,
  MiB - 1, MiB, MiB + 1, 5 * MiB - 1, 5 * MiB,
] // prettier-ignore
/** Of raw functions: each is deployed under a name with its limit. */
const limits = sizes.filter((size) => size > 0)

const nothing = new Uint8Array()

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ app: libraries.c, workers: 2, maxContiguous: '6 MiB' })
  await started.cluster.deploy({ native: [libraries.c, libraries.cpp], name: 'compiled' })
  const functions = limits.flatMap((limit) =>
    ['full', 'copy', 'result_too_large'].map((symbol) => [`${symbol}-${limit}`, { symbol, maxOutput: limit }]),
  )
  await started.cluster.deploy({
    native: libraries.rfaas,
    name: 'raw',
    maxOutput: '5 MiB',
    functions: {
      ...(Object.fromEntries(functions) as object),
      copy: {},
      empty: {},
      no_result: {},
      twice: { codec: 'Float64Array' },
      write_input: {},
      result_largest: {},
      result_address: {},
    },
  })
  await started.cluster.process('compiled', { app: 'compiled' })
  await started.cluster.process('raw', { app: 'raw' })
})
afterAll(() => started.close())

describe.each(transports)('native functions over %s', (transport) => {
  let cluster: Cluster
  let compiled: Process
  let raw: Process
  beforeAll(async () => {
    cluster = await connectBy(transport, started)
    compiled = await cluster.process('compiled', { create: false })
    raw = await cluster.process('raw', { create: false })
    expect([compiled.transport, raw.transport]).toEqual([transport, transport])
  })
  afterAll(() => cluster.close())

  const same = (found: Uint8Array, wanted: Uint8Array): void => {
    expect(found.byteLength).toBe(wanted.byteLength)
    expect(Buffer.compare(found, wanted)).toBe(0)
  }

  it.each(sizes)('get and give %i bytes', async (size) => {
    const input = pattern(size)
    const reversed = input.slice().reverse()
    for (const [name, wanted] of [
      ['echo', input],
      ['cpp_echo', input],
      ['reverse', reversed],
      ['cpp_reverse', reversed],
    ] as const) {
      same(await compiled.invoke(name, input), wanted)
      same(compiled.invokeSync(name, input), wanted)
    }
    same(await raw.invoke('copy', input), input)
    same(raw.invokeSync('copy', input), input)
  })

  it.each(sizes)('use memory that was allocated for %i bytes, and a bit more', async (size) => {
    for (const room of [Math.max(size, 1), size + 1, size + 4096]) {
      const input = compiled.allocate(Math.max(size, 1)).subarray(0, size)
      const output = compiled.allocate(room)
      input.set(pattern(size))
      output.fill(0xee)
      const reversed = pattern(size).reverse()
      same(await compiled.invoke('reverse', input, { output }), reversed)
      same(output.subarray(0, size), reversed)
      same(compiled.invokeSync('cpp_echo', input, { output }), pattern(size))
      expect(output.subarray(size).every((byte) => byte === 0xee)).toBe(true)
      compiled.release(input)
      compiled.release(output)
    }
  })

  it.each(sizes)('of rFaaS use memory that was allocated for %i bytes', async (size) => {
    const input = raw.allocate(Math.max(size, 1)).subarray(0, size)
    const output = raw.allocate(size + 64)
    input.set(pattern(size))
    output.fill(0xee)
    same(await raw.invoke('copy', input, { output }), pattern(size))
    same(raw.invokeSync('copy', input, { output }), pattern(size))
    // What follows it is the caller's, and no room for a result that may be larger.
    expect(output.subarray(size).every((byte) => byte === 0xee)).toBe(true)
    raw.release(input)
    raw.release(output)
  })

  it.each(limits)('of rFaaS may fill %i bytes and not say one more', async (limit) => {
    for (const call of [1, 2]) {
      const full = await raw.invoke(`full-${limit}`, uint32(limit))
      expect(full.byteLength, `call ${call}`).toBe(limit)
      expect(full.every((byte) => byte === 7)).toBe(true)
      for (const size of [limit, limit - 1, limit >> 1, 0]) {
        same(await raw.invoke(`copy-${limit}`, pattern(size)), pattern(size))
      }
    }
    const failure = await failureOf(raw.invoke(`result_too_large-${limit}`, uint32(limit)))
    expect(failure).toBeInstanceOf(FunctionError)
    expect(failure.code).toBe('ERR_FUNCTION_RESULT')
    expect(failure.message).toContain(`its result has ${limit + 1} bytes; its maxOutput is ${limit}`)
    expect(() => raw.invokeSync(`result_too_large-${limit}`, uint32(limit))).toThrow(
      expect.objectContaining({ code: 'ERR_FUNCTION_RESULT' }),
    )
  })

  it('of rFaaS say how much they gave, and work on their input', async () => {
    same(await raw.invoke('empty', uint32(5)), uint32(5))
    expect((await raw.invoke('no_result', uint32(5))).byteLength).toBe(0)
    expect((await raw.invoke('no_result')).byteLength).toBe(0)
    expect(await failureOf(raw.invoke('result_largest'))).toMatchObject({ code: 'ERR_FUNCTION_RESULT' })
    const address = Buffer.from(await raw.invoke('result_address')).readBigUInt64LE()
    expect(address % 16n).toBe(0n)
  })

  it.each([1, 4095, 4096, 4097, 300_000])('of rFaaS change %i bytes of input for themselves only', async (size) => {
    const changed = pattern(size).map((byte) => byte ^ 0x20)
    const own = pattern(size)
    const allocated = raw.allocate(size)
    allocated.set(own)
    for (const input of [own, allocated, own, allocated]) {
      same(await raw.invoke('write_input', input), changed)
      same(raw.invokeSync('write_input', input), changed)
      same(input, pattern(size))
    }
    raw.release(allocated)
  })

  it('encode and decode as the deployment says', async () => {
    expect(await raw.invoke('twice', new Float64Array([1.5, -2]))).toEqual(new Float64Array([3, -4]))
    expect(raw.invokeSync('twice', new Float64Array())).toEqual(new Float64Array())
    expect(await raw.signature('twice')).toEqual({
      stream: false,
      idempotent: false,
      input: 'Float64Array',
      output: 'Float64Array',
    })
    expect(await compiled.invoke('echo', { a: [1, null] }, { codec: 'json' })).toEqual({ a: [1, null] })
    expect(await failureOf(compiled.invoke('echo', 'text'))).toMatchObject({ code: 'ERR_PAYLOAD_CODEC' })
  })

  it.each([
    ['compiled', 'echo'],
    ['raw', 'copy-65536'],
    ['raw', 'copy'],
  ])('of %s run many at a time, and mix nothing up: %s', async (id, name) => {
    const process = id === 'raw' ? raw : compiled
    const many = Array.from({ length: 200 }, (_, index) => pattern((index * 997) % 20_000).fill(index & 0xff, 0, 8))
    let next = 0
    for await (const output of process.invokeMany(name, many, { inFlight: 64 })) same(output, many[next++] ?? nothing)
    expect(next).toBe(200)
    const seen = new Set<number>()
    for await (const { index, output } of process.invokeMany(name, many, { inFlight: 64, ordered: false })) {
      same(output, many[index] ?? nothing)
      seen.add(index)
    }
    expect(seen.size).toBe(200)
  })

  it('of rFaaS need no more memory for many small results than those have', async () => {
    const calls = Array.from({ length: 256 }, (_, index) => raw.invoke('copy', uint32(index)))
    expect((await Promise.all(calls)).map((bytes) => Buffer.from(bytes).readUInt32LE())).toEqual([...calls.keys()])
  })

  it('refuse what is too large', async () => {
    const input = new Uint8Array(6 * MiB + 1)
    expect(await failureOf(raw.invoke('copy', input))).toMatchObject({ code: 'ERR_PAYLOAD_TOO_LARGE' })
    expect(() => compiled.invokeSync('echo', input)).toThrow(PayloadError)
    expect((await compiled.invoke('filled', bytesOf(String(6 * MiB)))).byteLength).toBe(6 * MiB)
    const failure = await failureOf(compiled.invoke('filled', bytesOf(String(6 * MiB + 1))))
    expect(failure.code).toBe('ERR_FUNCTION_THREW')
    expect(failure.message).toContain('maxContiguous')
  })

  it.each([
    [99, 100],
    [99, 5000],
    [5000, 100_000],
  ])('write no further than the %i bytes they were allocated, with %i bytes of result', async (room, size) => {
    for (const [process, name] of [
      [compiled, 'reverse'],
      [raw, 'copy'],
    ] as const) {
      const memory = process.allocate(room + 64)
      memory.fill(0xee)
      const wanted = name === 'reverse' ? pattern(size).reverse() : pattern(size)
      same(await process.invoke(name, pattern(size), { output: memory.subarray(0, room) }), wanted)
      expect(memory.subarray(room).every((byte) => byte === 0xee)).toBe(true)
      process.release(memory)
    }
  })

  it('that are not there are named', async () => {
    const failure = await failureOf(compiled.invoke('no_such_function'))
    expect(failure.code).toBe('ERR_FUNCTION_UNKNOWN')
    expect(failure.message).toContain('no_such_function')
  })
})

describe('deployments', () => {
  it('say of which language they are, and what they offer', async () => {
    const app = await started.cluster.deploy({ native: libraries.c })
    expect(app).toMatchObject({ name: 'libc_functions', entry: libraries.c, language: 'native', bundleBytes: 0 })
    expect(app.exports).toContain('reverse')
    expect(app.native.find(({ name }) => name === 'reverse')).toEqual({
      name: 'reverse',
      library: libraries.c,
      symbol: 'reverse',
      abi: 'c',
    })
  })

  it('offer what they were told to, under the names they were told', async () => {
    const app = await started.cluster.deploy({
      native: libraries.c,
      name: 'chosen',
      functions: { backwards: { symbol: 'reverse', input: 'raw', output: 'json', idempotent: true }, idempotent: {} },
    })
    expect(app.exports).toEqual(['backwards', 'idempotent'])
    const process = await started.cluster.process('chosen', { app: 'chosen' })
    expect(await process.invoke('backwards', bytesOf('}1:"a"{'))).toEqual({ a: 1 })
    expect(await process.signature('backwards')).toEqual({
      stream: false,
      idempotent: true,
      input: 'raw',
      output: 'json',
    })
    expect(await process.signature('idempotent')).toMatchObject({ idempotent: true })
    expect(await say(process, 'idempotent')).toBe('again and again')
    expect(await failureOf(process.invoke('reverse'))).toMatchObject({ code: 'ERR_FUNCTION_UNKNOWN' })
    await process.stop()
  })

  it('may be anew while processes run: those keep what they were started with', async () => {
    await started.cluster.deploy({ native: libraries.c, name: 'anew', functions: { f: { symbol: 'echo' } } })
    const before = await started.cluster.process('before', { app: 'anew' })
    await started.cluster.deploy({ native: libraries.c, name: 'anew', functions: { f: { symbol: 'reverse' } } })
    const after = await started.cluster.process('after', { app: 'anew' })
    expect(await say(before, 'f', 'abc')).toBe('abc')
    expect(await say(after, 'f', 'abc')).toBe('cba')
    await before.stop()
    await after.stop()
  })
})
