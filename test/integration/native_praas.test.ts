/** PraaS' types, member by member, and its function table. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import type { FunctionError } from '../../src/errors.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, libraries, say, tables, withoutCereal } from '../support/native.js'

const MiB = 2 ** 20

let started: TestCluster
let process: Process
beforeAll(async () => {
  started = await startCluster({ app: libraries.praas, workers: 2 })
  process = await started.cluster.process('praas')
  await started.cluster.deploy({ native: [libraries.praas, libraries.c], name: 'both' })
})
afterAll(() => started.close())

const remoteOf = async (call: Promise<unknown>): Promise<{ name: string; message: string }> => {
  const failure = (await failureOf(call)) as FunctionError
  expect(failure.code).toBe('ERR_FUNCTION_THREW')
  return failure.remote ?? { name: '', message: '' }
}

describe('members', () => {
  /** Functions that check by themselves: 0 when they are right, which is no failure. */
  it.each([
    ['Buffer::ptr, len, size, null, empty, str; Context::get_buffer', 'buffer_members', 'input'],
    ['Context::as_buffer, BufferAccessor::ptr, len, null, empty, data', 'output_as_buffer', ''],
    ['Context::state(key), state(key, Buffer), state(key, text)', 'state_values', ''],
    ['Context::put(Buffer), put(ptr, size), get; SELF, ANY, process_id', 'messages_to_self', ''],
    ['Context::active_processes, swapped_processes', 'processes', ''],
    ['Context::start_invocation, end_invocation, invocation_id', 'start_and_end', ''],
    ['praas::common exceptions', 'catches_exceptions', ''],
    ['Context::invoke, FunctionGetFailure', 'catches_exceptions', ''],
    ['Context::get_output_buffer that cannot be had', 'output_given_up', ''],
  ])('%s', async (_what, name, input) => {
    await process.invoke(name, bytesOf(input))
    await process.invoke(name, bytesOf(input))
  })

  it.each([
    ['Buffer::str', 'buffer_str', 'text', '<text>'],
    ['Buffer::str, empty', 'buffer_str', '', '<>'],
    ['no output', 'output_none', 'input', ''],
    ['Context::get_output_buffer, default size', 'output_default', '', String(5 * MiB)],
    ['Context::set_output_buffer(args[0])', 'output_input', 'the input', 'the input'],
    ['Context::set_output_buffer(args[0]), empty', 'output_input', '', ''],
    ['Context::set_output_buffer(get_output_buffer())', 'output_set_to_itself', '', 'x'],
    ['Context::set_output_buffer(get_buffer())', 'output_user_buffer', '', 'user buffer!'],
    ['Context::write_output', 'output_written', '', 'first second'],
    ['InvocationResult::key, function_name, return_code, payload', 'invoke_members', 'text', '<text>'],
    ['praas::process::runtime', 'runtime_names', 'abc', 'cba'],
  ])('%s', async (_what, name, input, output) => {
    expect(await say(process, name, input)).toBe(output)
    expect(await say(process, name, input)).toBe(output)
  })

  it('Invocation::key, function_name, args; Context::invocation_id, process_id', async () => {
    const [key, name, args, id, processId] = (await say(process, 'invocation_members', 'x')).split(' ')
    expect([name, args, processId]).toEqual(['invocation_members', '1', 'praas'])
    expect(key).toBe(id)
    expect(key).not.toBe('')
  })

  it('Context::get_output_buffer(size)', async () => {
    const input = Int32Array.from({ length: 50_000 }, (_, index) => index)
    const output = await process.invoke<Int32Array>('output_sized', input, { codec: 'Int32Array' })
    expect(output).toEqual(input.map((value) => value + 2))
  })

  it.each([0, 1, 4096, 4097, MiB, 20 * MiB])('Context::get_output_buffer, grown to %i bytes', async (size) => {
    const output = await process.invoke('output_grown', bytesOf(String(size)))
    expect(output.byteLength).toBe(size)
    expect(output.every((byte) => byte === 0x62)).toBe(true)
  })

  it.each([
    ['Context::get_buffer', 'buffer_too_large', /get_buffer\(\d+\)/],
    ['Context::get_output_buffer', 'output_too_large', /get_output_buffer\(\d+\)/],
    ['Context::write_output', 'output_written_beyond', /do not fit into the output buffer of 4096 bytes/],
    ['Buffer::len', 'output_len_beyond', /has 4096 bytes, and its len is 4097/],
  ])('%s beyond what there is fails', async (_what, name, message) => {
    expect((await remoteOf(process.invoke(name))).message).toMatch(message)
  })
})

describe('state, messages and calls', () => {
  it('Context::state is that of clients; Context::state_keys', async () => {
    await process.state.set('praas/from-client', bytesOf('hello'))
    expect(await say(process, 'state_read', 'praas/from-client')).toBe('hello')
    expect(await say(process, 'state_read', 'praas/no-such-key')).toBe('')
    const keys: string[] = []
    for await (const { key } of process.state.keys()) keys.push(key)
    expect((await say(process, 'state_all_keys')).split('\n').filter(Boolean)).toEqual(keys)
    expect(keys).toContain('praas/from-client')
  })

  it('Context::put of one invocation, Context::get of another', async () => {
    const waiting = say(process, 'message_get')
    expect(await say(process, 'message_put', 'for the other')).toBe('')
    expect(await waiting).toBe('for the other')
    // The deadline of the call is that of the wait.
    expect(await failureOf(process.invoke('message_never', undefined, { timeoutMs: 100 }))).toMatchObject({
      code: 'ERR_INVOCATION_TIMEOUT',
    })
  })

  it.each(['message_put_elsewhere', 'message_get_elsewhere', 'invoke_elsewhere'])(
    '%s: other processes cannot be talked to',
    async (name) => {
      expect((await remoteOf(process.invoke(name))).message).toContain('another-process')
    },
  )

  it('Context::invoke in other languages', async () => {
    const both = await started.cluster.process('both', { app: 'both' })
    expect(await say(both, 'invoke_by_name', 'reverse')).toBe('0 tupni')
    expect(await say(both, 'invoke_by_name', 'buffer_str')).toBe('0 <input>')
    expect(await say(both, 'invoke_by_name', 'returns_seven')).toMatch(/^7 .*returns_seven failed with return code 7/)
    expect(await say(both, 'invoke_by_name', 'returns_minus_one')).toMatch(/^-1 /)
    expect(await say(both, 'invoke_by_name', 'throws_exception')).toMatch(/^1 .*thrown on purpose/)
    expect(await say(both, 'invoke_by_name', 'fails')).toMatch(/^1 .*asked to fail/)
    expect(await say(both, 'invoke', 'buffer_str text')).toBe('<text>')
    expect(await say(both, 'invoke', 'returns_seven')).toMatch(/^ERR_FUNCTION_THREW: .*return code 7/)
    await both.stop()
  })
})

describe('failures', () => {
  it.each([
    ['returns_seven', 'returns_seven failed with return code 7'],
    ['returns_minus_one', 'returns_minus_one failed with return code -1'],
    ['throws_exception', 'thrown on purpose'],
    ['throws_number', 'threw something that is not a std::exception'],
  ])('%s', async (name, message) => {
    expect((await remoteOf(process.invoke(name))).message).toContain(message)
    expect(await say(process, 'buffer_str', 'goes on')).toBe('<goes on>')
  })
})

describe.skipIf(withoutCereal !== undefined)('cereal', () => {
  const numbers = (...values: number[]): Uint8Array => new Uint8Array(Int32Array.from(values).buffer)

  it('Buffer::deserialize and serialize', async () => {
    expect(await process.invoke('cereal_add', numbers(4, 38))).toEqual(numbers(42))
    expect(await process.invoke('cereal_power', numbers(3, 5))).toEqual(numbers(243))
    await process.invoke('cereal_members')
  })

  it('of a vector of a mebibyte', async () => {
    const output = Buffer.from(await process.invoke('cereal_large'))
    expect(output.byteLength).toBe(8 + MiB)
    expect(output.readBigUInt64LE()).toBe(1n << 17n)
    expect(output.readDoubleLE(8 + MiB - 8)).toBe(0.5)
  })

  it('of what does not fit, or ends too early', async () => {
    expect((await remoteOf(process.invoke('cereal_too_large'))).message).toMatch(/108 bytes/)
    expect((await remoteOf(process.invoke('cereal_add', numbers(1)))).message).not.toBe('')
  })
})

describe('a function table', () => {
  it('names functions of libraries, of all kinds', async () => {
    if (withoutCereal !== undefined) return
    const app = await started.cluster.deploy({ native: tables.absolute, name: 'table' })
    expect(app.exports).toEqual(['add', 'raw-copy', 'text-of'])
    const process = await started.cluster.process('table', { app: 'table' })
    expect(await process.invoke('add', new Uint8Array(Int32Array.of(1, 2).buffer))).toEqual(Uint8Array.of(3, 0, 0, 0))
    expect(await say(process, 'text-of', 'text')).toBe('<text>')
    expect(await say(process, 'raw-copy', 'text')).toBe('text')
    expect(await failureOf(process.invoke('buffer_str'))).toMatchObject({ code: 'ERR_FUNCTION_UNKNOWN' })
    await process.stop()
  })

  it('has libraries beside it', async () => {
    const process = await started.cluster.process('relative', { app: tables.relative })
    expect(await say(process, 'text-of', 'text')).toBe('<text>')
    expect((await remoteOf(process.invoke('returns-seven'))).message).toContain(
      'returns-seven failed with return code 7',
    )
    await process.stop()
  })

  it('of another language is refused', async () => {
    const failure = await failureOf(started.cluster.deploy({ native: tables.python }))
    expect(failure.code).toBe('ERR_DEPLOY_FAILED')
    expect(failure.message).toMatch(/python/)
  })
})
