/** Every class of praas.hpp. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import type { FunctionError } from '../../src/errors.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, libraries, say, untilReady } from '../support/native.js'

let started: TestCluster
let process: Process
beforeAll(async () => {
  started = await startCluster({ app: libraries.cpp, workers: 2 })
  process = await started.cluster.process('cpp')
})
afterAll(() => started.close())

describe('functions in C++', () => {
  it.each([
    ['Call::text, output', 'cpp_reverse', 'abc', 'cba'],
    ['Call::input, result', 'cpp_echo', 'abc', 'abc'],
    ['no result', 'cpp_nothing', 'abc', ''],
    ['Call::truncate', 'cpp_truncated', '', 'xxx'],
    ['Call::output, too large', 'cpp_too_large', '', 'ERR_PAYLOAD_TOO_LARGE ERR_PAYLOAD_TOO_LARGE'],
    ['Call::result of every kind', 'cpp_results', 'input', 'a string'],
    ['Span', 'cpp_span', '', 'OK'],
    ['Call::buffer', 'cpp_scratch', '', '999'],
    [
      'Error',
      'cpp_errors',
      '',
      'ERR_STATE_NOT_FOUND ERR_STATE_TYPE ERR_NAME_INVALID ERR_ARGUMENT_INVALID ERR_ARGUMENT_INVALID ' +
        'ERR_FUNCTION_UNKNOWN',
    ],
    ['State, values', 'cpp_values', '', '0ab3!'],
    ['Array, element types', 'cpp_types', '', 'OK'],
    ['Lock', 'cpp_locks', '', 'OK'],
    ['Call::begin, invoke; Reply', 'cpp_invoke', '', 'cba'],
    ['Mailbox', 'cpp_mail', '', 'one two'],
    ['Call, ids', 'cpp_about', '', 'cpp cpp_about 0'],
  ])('%s', async (_what, name, input, output) => {
    expect(await say(process, name, input)).toBe(output)
    // Once more, in a worker that has run it: nothing is left of the first time.
    expect(await say(process, name, input)).toBe(output)
  })

  it('State::keys', async () => {
    for (const key of ['b', 'a']) await process.state.set(`cpp/keys/${key}`, bytesOf(key))
    expect(await say(process, 'cpp_keys', 'cpp/keys/')).toBe('cpp/keys/a\ncpp/keys/b\n')
    expect(await say(process, 'cpp_keys', 'cpp/none/')).toBe('')
  })

  it('Array, changed by several workers', async () => {
    await untilReady(process, 2)
    await Promise.all(Array.from({ length: 100 }, () => say(process, 'cpp_count')))
    const counters = await process.state.get('cpp/counters')
    expect(Buffer.from(counters ?? []).readInt32LE(0)).toBe(100)
    expect(Buffer.from(counters ?? []).readInt32LE(4)).toBe(100)
    expect(await process.state.stat('cpp/clamped')).toMatchObject({ elementType: 'Uint8ClampedArray' })
  })

  it('Array, as long as it is', async () => {
    await say(process, 'cpp_count')
    expect(await say(process, 'cpp_whole_array', 'cpp/last')).toMatch(/^\d+ ERR_STATE_NOT_FOUND$/)
  })

  it('Float64Array in and out', async () => {
    const doubled = await process.invoke('cpp_double', new Float64Array([1.5, -2]), { codec: 'Float64Array' })
    expect(doubled).toEqual(new Float64Array([3, -4]))
    // 12 bytes are no doubles.
    const failure = (await failureOf(process.invoke('cpp_double', new Uint8Array(12)))) as FunctionError
    expect(failure.code).toBe('ERR_FUNCTION_THREW')
    expect(failure.remote?.message).toContain('12')
  })

  it('may be run again when they say so', async () => {
    expect(await process.signature('cpp_idempotent')).toMatchObject({ idempotent: true })
    expect(await process.signature('cpp_echo')).toMatchObject({ idempotent: false })
    expect(await say(process, 'cpp_idempotent')).toBe('again and again')
  })

  it.each([
    ['cpp_throws', 'thrown: input'],
    ['cpp_throws_error', 'ERR_STATE_RANGE: thrown on purpose'],
    ['cpp_throws_number', 'threw something that is not a std::exception'],
  ])('%s: an exception is the failure of the call', async (name, message) => {
    const failure = (await failureOf(process.invoke(name, bytesOf('input')))) as FunctionError
    expect(failure.code).toBe('ERR_FUNCTION_THREW')
    expect(failure.remote?.message).toContain(message)
    expect(await say(process, 'cpp_echo', 'goes on')).toBe('goes on')
  })
})
