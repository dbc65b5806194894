/** Every function of praas.h. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import type { FunctionError, WorkerError } from '../../src/errors.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, libraries, pattern, say, textOf, untilReady } from '../support/native.js'

let started: TestCluster
let process: Process
beforeAll(async () => {
  started = await startCluster({ app: libraries.c, workers: 2, graceMs: 20_000, maxContiguous: '8 MiB' })
  process = await started.cluster.process('c')
})
afterAll(() => started.close())

const get = async (key: string): Promise<string | undefined> => {
  const value = await process.state.get(key)
  return value && textOf(value)
}

describe('input and output', () => {
  it.each([
    ['praas_input', 'input_size', '', 'NULL 0'],
    ['praas_input', 'input_size', 'abc', 'memory 3'],
    ['praas_output', 'reverse', 'stressed', 'desserts'],
    ['praas_output, empty', 'reverse', '', ''],
    ['praas_output, twice', 'output_twice', '', 'second'],
    ['praas_output_truncate', 'truncated', '', 'xxx'],
    ['praas_output_truncate, wrongly', 'truncated_wrongly', '', 'ERR_ARGUMENT_INVALID ERR_ARGUMENT_INVALID'],
    ['praas_return of the input', 'echo', 'input', 'input'],
    ['praas_return of a part of it', 'inner', '<input>', 'input'],
    ['praas_return of the begin of the output', 'output_begin', '', '01234'],
    ['praas_return of other memory', 'scratch', '', 'scratch'],
    ['no result', 'nothing', 'input', ''],
  ])('%s: %s(%j)', async (_what, name, input, output) => {
    expect(await say(process, name, input)).toBe(output)
    expect(textOf(process.invokeSync(name, bytesOf(input)))).toBe(output)
  })

  it.each([0, 1, 4095, 4096, 4097, 65_536, 1 << 20, 8 << 20])('praas_output of %i bytes', async (size) => {
    const output = await process.invoke('filled', bytesOf(String(size)))
    expect(output.byteLength).toBe(size)
    expect(output.every((byte) => byte === 7)).toBe(true)
  })

  it('praas_output of more than is possible is NULL, and says why', async () => {
    for (const size of [String((8 << 20) + 1), '18446744073709551615']) {
      const { message } = await failureOf(process.invoke('filled', bytesOf(size)))
      expect(message).toContain(`a result of ${size} bytes exceeds the limit of ${8 << 20}`)
    }
  })

  it.each([2, 4098, 100_000])('praas_return of a part of %i bytes of input', async (size) => {
    const output = await process.invoke('inner', pattern(size))
    expect(Buffer.compare(output, pattern(size).subarray(1, -1))).toBe(0)
  })
})

describe('failures', () => {
  it('say what praas_fail said', async () => {
    const failure = (await failureOf(process.invoke('fails', bytesOf('more')))) as FunctionError
    expect(failure.code).toBe('ERR_FUNCTION_THREW')
    expect(failure.message).toBe('function fails threw Error: asked to fail with 42 and more')
    expect(failure.remote).toMatchObject({ name: 'Error', message: 'asked to fail with 42 and more' })
    expect(() => process.invokeSync('fails')).toThrow(/asked to fail with 42/)
  })

  it('say the number when nothing else was said', async () => {
    const failure = (await failureOf(process.invoke('fails_silently'))) as FunctionError
    expect(failure.remote).toMatchObject({ message: 'function fails_silently returned 7', code: '7' })
  })

  it('say 4,000 bytes at most', async () => {
    const failure = (await failureOf(process.invoke('fails_at_length'))) as FunctionError
    expect(failure.remote?.message).toBe('r'.repeat(4000))
  })

  it('are named by praas_status_name', async () => {
    const names = [
      [0, 'OK'], [1, 'ERR_INTERNAL'], [3, 'ERR_ARGUMENT_INVALID'], [4, 'ERR_UNSUPPORTED'],
      [23, 'ERR_PROCESS_DRAINING'], [30, 'ERR_FUNCTION_UNKNOWN'], [31, 'ERR_FUNCTION_THREW'],
      [32, 'ERR_FUNCTION_RESULT'], [33, 'ERR_NAME_INVALID'], [40, 'ERR_INVOCATION_TIMEOUT'],
      [41, 'ERR_INVOCATION_CANCELLED'], [42, 'ERR_INVOCATION_DEADLOCK'], [50, 'ERR_WORKER_CRASHED'],
      [60, 'ERR_PAYLOAD_TOO_LARGE'], [61, 'ERR_BACKPRESSURE'], [70, 'ERR_STATE_NOT_FOUND'],
      [71, 'ERR_STATE_VERSION'], [72, 'ERR_STATE_TYPE'], [73, 'ERR_STATE_MEMORY'], [74, 'ERR_STATE_CONTENDED'],
      [75, 'ERR_STATE_RANGE'], [76, 'ERR_STATE_LOCK_TIMEOUT'], [77, 'ERR_STATE_LOCK_LOST'], [81, 'ERR_SEGMENT_STUCK'],
    ] as const // prettier-ignore
    for (const [status, name] of names) expect(await say(process, 'status_name', String(status))).toBe(name)
    for (const unknown of ['2', '9999', '-1']) expect(await say(process, 'status_name', unknown)).toMatch(/^E/)
  })
})

describe('an invocation', () => {
  it('tells about itself', async () => {
    const about = async (): Promise<Record<string, unknown>> =>
      JSON.parse(await say(process, 'about', '', 5_000)) as Record<string, unknown>
    const first = await about()
    expect(first).toMatchObject({ process: 'c', function: 'about', depth: 0, cancelled: 0, error: '' })
    expect(first['remainingMs']).toBeLessThanOrEqual(5_000)
    expect(first['remainingMs']).toBeGreaterThan(0)
    expect(JSON.parse(await say(process, 'invoke', 'about'))).toMatchObject({ function: 'about', depth: 1 })
  })

  it('notices that its caller has given up', async () => {
    const abort = new AbortController()
    const call = failureOf(process.invoke('until_cancelled', bytesOf('c/aborted'), { signal: abort.signal }))
    await expect.poll(() => get('c/running')).toBe('')
    abort.abort(new Error('changed my mind'))
    expect((await call).message).toBe('changed my mind')
    await expect.poll(() => get('c/aborted')).toBe('cancelled')
  })

  it('notices that its caller has gone', async () => {
    const other = await started.cluster.process('c')
    await process.state.delete('c/running')
    const call = failureOf(other.invoke('until_cancelled', bytesOf('c/gone')))
    await expect.poll(() => get('c/running')).toBe('')
    other.close()
    await call
    await expect.poll(() => get('c/gone')).toBe('cancelled')
  })

  it('notices that its deadline has passed', async () => {
    // Again while the machine is too busy for the function to begin before, or to say so within the grace time.
    const late = async (): Promise<string | undefined> => {
      const failure = await failureOf(process.invoke('until_cancelled', bytesOf('c/late'), { timeoutMs: 100 }))
      expect(failure.code).toBe('ERR_INVOCATION_TIMEOUT')
      return get('c/late')
    }
    await expect.poll(late).toBe('deadline')
  })
})

describe('calls', () => {
  it('praas_invoke gives what the called one gave', async () => {
    expect(await say(process, 'invoke', 'reverse abc')).toBe('cba')
    expect(await say(process, 'invoke', 'nothing')).toBe('')
    expect(await say(process, 'invoke', 'invoke reverse abc')).toBe('cba')
  })

  it('praas_invoke says what went wrong in the called one', async () => {
    expect(await say(process, 'invoke', 'fails x')).toMatch(/^ERR_FUNCTION_THREW: .*asked to fail with 42 and x/)
    expect(await say(process, 'invoke', 'nowhere x')).toMatch(/^ERR_FUNCTION_UNKNOWN: .*nowhere/)
    expect(await say(process, 'invoke_briefly', 'until_cancelled c/brief')).toMatch(/^ERR_INVOCATION_TIMEOUT/)
    await expect.poll(() => get('c/brief')).toMatch(/cancelled|deadline/)
  })

  it('praas_invoke reports the crash of the called one', async () => {
    const two = await started.cluster.process('crashing', { workers: 2 })
    await untilReady(two, 2)
    const answers = await Promise.all(
      [1, 2, 3].map(() => say(two, 'invoke', 'lock_and_die x').catch((e: unknown) => e)),
    )
    // On top of its caller it takes it along; elsewhere it is the callee's failure.
    for (const answer of answers) {
      const told = answer instanceof Error ? (answer as WorkerError).code : answer
      expect(told).toMatch(/^ERR_WORKER_CRASHED/)
    }
    await two.stop()
  })

  it('praas_invoke_begin and praas_invoke_wait run several at a time, in any order', async () => {
    expect(await say(process, 'invoke_many', 'reverse ab')).toBe('3ba 2ba 1ba 0ba')
    const answers = await Promise.all(Array.from({ length: 20 }, () => say(process, 'invoke_many', 'reverse ab')))
    expect(new Set(answers)).toEqual(new Set(['3ba 2ba 1ba 0ba']))
  })

  it('that nobody waits for are cancelled with the invocation that made them', async () => {
    await process.state.delete('c/left')
    expect(await say(process, 'invoke_and_leave', 'until_cancelled c/left')).toBe('OK')
    expect(await say(process, 'invoke_and_leave', 'nowhere')).toMatch(/^ERR_FUNCTION_UNKNOWN/)
    // It never began, or has noticed: the workers are free either way.
    expect(await Promise.all([1, 2, 3, 4].map(() => say(process, 'reverse', 'ab')))).toEqual(Array(4).fill('ba'))
  })

  it.each([1, 10, 15])('go %i deep with one worker', async (depth) => {
    const alone = await started.cluster.process(`alone-${depth}`, { workers: 1 })
    expect(await say(alone, 'descend', String(depth))).toBe(String(depth))
    await alone.stop()
  })

  it.each([8, 16, 32])('go on with one worker, however many of them wait: %i', async (count) => {
    const alone = await started.cluster.process(`waiting-${count}`, { workers: 1 })
    const calls = Array.from({ length: count }, () => say(alone, 'invoke', 'reverse abc', 10_000))
    expect(await Promise.all(calls)).toEqual(Array(count).fill('cba'))
    await alone.stop()
  })

  it('go as deep as they like, or fail at once where that is too deep for the stack', async () => {
    const alone = await started.cluster.process('alone-deep', { workers: 1 })
    const answer = await say(alone, 'descend', '40', 5_000).catch((error: unknown) => (error as FunctionError).code)
    expect(answer).toMatch(/^40$|^ERR_INVOCATION_DEADLOCK/)
    await alone.stop()
  })
})

describe('messages', () => {
  it('come in the order they were put, from anywhere in the process', async () => {
    for (const message of ['one', 'two', 'three', '']) expect(await say(process, 'put', `box ${message}`)).toBe('OK')
    expect(await say(process, 'get', 'box')).toBe('one')
    expect(await say(process, 'get', 'box ANY')).toBe('two')
    expect(await say(process, 'get', 'box c')).toBe('three')
    expect(await say(process, 'get_any', 'box')).toBe('')
  })

  it('are waited for', async () => {
    const waiting = say(process, 'get_any', 'later')
    expect(await say(process, 'put', 'later a message')).toBe('OK')
    expect(await waiting).toBe('a message')
  })

  it('that never come time out; those for others are refused', async () => {
    expect(await say(process, 'get', 'never')).toMatch(/^ERR_INVOCATION_TIMEOUT: .*never/)
    expect(await say(process, 'get', 'never other-process')).toMatch(/^ERR_UNSUPPORTED: .*other-process/)
    expect(await say(process, 'put_to', 'other-process text')).toMatch(/^ERR_UNSUPPORTED: .*other-process/)
    expect(await say(process, 'put_to', 'ANY text')).toMatch(/^ERR_UNSUPPORTED/)
    expect(await say(process, 'put_to', 'c text')).toBe('OK')
    expect(await say(process, 'get', 'c/elsewhere')).toBe('text')
    expect(await say(process, 'put', `${'k'.repeat(300)} text`)).toMatch(/^ERR_NAME_INVALID/)
  })
})
