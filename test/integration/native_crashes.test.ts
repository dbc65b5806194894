/** What a native function can do to its worker, and that nobody else has a share in it. */
import { readlinkSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { FunctionError, InvocationError, WorkerError } from '../../src/errors.js'
import { failureOf, isRunning, startCluster, untilGone, type TestCluster } from '../support/cluster.js'
import {
  bytesOf,
  libraries,
  pattern,
  processBy,
  say,
  textOf,
  transports,
  type Transport,
  uint32,
  untilReady,
} from '../support/native.js'
import { childrenOf } from '../support/processes.js'

const MiB = 2 ** 20
/** Of raw functions: functions that write 2 MiB before or behind their results meet the gap around those. */
const most = 2 * MiB
/** Of the result areas: within a page, a page, more. */
const limits = [1, 15, 16, 17, 4080, 4095, 4096, 4097, 65_536, MiB + 1]
const overruns = ['overrun_byte', 'overrun_page', 'overrun_far'] as const

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ graceMs: 100 })
  const limited = limits.flatMap((maxOutput) =>
    [...overruns, 'full', 'underrun_byte'].map((symbol) => [`${symbol}-${maxOutput}`, { symbol, maxOutput }]),
  )
  await started.cluster.deploy({ native: libraries.rfaas, name: 'raw', maxOutput: most })
  await started.cluster.deploy({
    native: [libraries.rfaas, libraries.c],
    name: 'both',
    functions: {
      ...(Object.fromEntries(limited) as object),
      ...Object.fromEntries(
        ['worker_pid', 'copy', 'segfault', 'divide_by_zero', 'aborts', 'until_cancelled', 'lock_and_die'].map(
          (name) => [name, {}],
        ),
      ),
    },
  })
})
afterAll(() => started.close())

const pidOf = async (process: Process): Promise<number> =>
  Buffer.from(await process.invoke('worker_pid', undefined, { timeoutMs: 30_000 })).readUInt32LE()

interface Ends {
  readonly signal?: string
  readonly exitCode?: number
  readonly stderr: RegExp
  readonly input?: Uint8Array
}

/** Raw functions that end their worker, and how. */
const endings: Record<string, Ends> = {
  segfault: {
    signal: 'SIGSEGV',
    stderr: /about to write to address 8[^]*function "segfault" accessed invalid memory at 0x8/,
  },
  divide_by_zero: { signal: 'SIGFPE', stderr: /function "divide_by_zero" was ended by signal 8 \(FPE\)/ },
  aborts: { signal: 'SIGABRT', stderr: /aborts: goodbye[^]*function "aborts" was ended by signal 6 \(ABRT\)/ },
  illegal_instruction: { signal: 'SIGILL', stderr: /function "illegal_instruction" was ended by signal 4 \(ILL\)/ },
  exits: { exitCode: 0, stderr: /function "exits" called exit\(\)/ },
  exits_with_3: { exitCode: 3, stderr: /^/ },
  kills_itself: { signal: 'SIGKILL', stderr: /^/ },
  stack_overflow: { signal: 'SIGSEGV', stderr: /function "stack_overflow" has overflowed its stack/ },
  throws: {
    signal: 'SIGABRT',
    stderr: /runtime_error[^]*nobody catches this[^]*function "throws" was ended by signal 6 \(ABRT\)/,
  },
  much_to_say: { signal: 'SIGABRT', stderr: /the last line\n[^]*function "much_to_say"/ },
  overrun_byte: { signal: 'SIGSEGV', stderr: /function "overrun_byte".*maxOutput/, input: uint32(most) },
  overrun_page: { signal: 'SIGSEGV', stderr: /function "overrun_page".*maxOutput/, input: uint32(most) },
  overrun_far: { signal: 'SIGSEGV', stderr: /function "overrun_far".*maxOutput/, input: uint32(most) },
  overrun_jump: { signal: 'SIGSEGV', stderr: /function "overrun_jump".*maxOutput/ },
  underrun_byte: { signal: 'SIGSEGV', stderr: /function "underrun_byte".*maxOutput/ },
  underrun_far: { signal: 'SIGSEGV', stderr: /function "underrun_far".*maxOutput/ },
}

let processes = 0

/**
 * A process of its own, by one transport: workers that die again and again are replaced ever more slowly.
 */
async function processFor(transport: Transport, app: 'raw' | 'both', workers = 1): Promise<Process> {
  const id = `${app}-${++processes}`
  const created = await started.cluster.process(id, { app, workers })
  onTestFinished(async () => {
    expect((await created.describe()).restarts, 'the host has lived through it').toBe(0)
    await created.stop()
  })
  const process = await processBy(transport, started, id)
  await process.state.set('kept', bytesOf('state'))
  return process
}

/** The worker was replaced, nothing of it is left, and all goes on. */
async function expectReplaced(process: Process, before: number): Promise<void> {
  expect(await pidOf(process)).not.toBe(before)
  await untilGone(before)
  expect(await process.state.get('kept')).toEqual(new Uint8Array(bytesOf('state')))
  expect(await say(process, 'copy', 'goes on')).toBe('goes on')
}

describe.each(transports)('over %s', (transport) => {
  it.each(Object.keys(endings))('%s: the caller is told, the worker replaced', async (name) => {
    const { signal, exitCode, stderr, input } = endings[name] as Ends
    const raw = await processFor(transport, 'raw')
    for (const sync of [false, true]) {
      const before = await pidOf(raw)
      const call = async (): Promise<unknown> => (sync ? raw.invokeSync(name, input) : raw.invoke(name, input))
      const failure = (await failureOf(call())) as WorkerError
      expect(failure).toBeInstanceOf(WorkerError)
      expect(failure.code).toBe('ERR_WORKER_CRASHED')
      expect({ signal: failure.signal, exitCode: failure.exitCode }).toEqual({ signal, exitCode })
      expect(failure.stderr ?? '').toMatch(stderr)
      await expectReplaced(raw, before)
    }
  })

  it.each(limits)('writes beyond %i bytes of result are found, those within are not', async (limit) => {
    const pair = await processFor(transport, 'both', 2)
    const input = uint32(limit)
    for (const name of overruns) {
      const failure = (await failureOf(pair.invoke(`${name}-${limit}`, input))) as WorkerError
      expect(failure.code).toBe('ERR_WORKER_CRASHED')
      expect(failure.signal).toMatch(/^SIG(SEGV|ABRT)$/)
      expect(failure.stderr).toMatch(new RegExp(`function "${name}-${limit}".*maxOutput .*\\b${limit} bytes`))
      const full = await pair.invoke(`full-${limit}`, input)
      expect(full.byteLength).toBe(limit)
      expect(full.every((byte) => byte === 7)).toBe(true)
    }
    const failure = (await failureOf(pair.invoke(`underrun_byte-${limit}`, input))) as WorkerError
    expect(failure.code).toBe('ERR_WORKER_CRASHED')
    expect(failure.stderr).toMatch(new RegExp(`function "underrun_byte-${limit}"`))
  })

  it.each(['result_too_large', 'result_largest'])('%s is an error of the call alone', async (name) => {
    const raw = await processFor(transport, 'raw')
    const before = await pidOf(raw)
    const failure = await failureOf(raw.invoke(name, uint32(most)))
    expect(failure).toBeInstanceOf(FunctionError)
    expect(failure.code).toBe('ERR_FUNCTION_RESULT')
    expect(failure.message).toContain(name)
    expect(await pidOf(raw)).toBe(before)
  })

  it.each(['infinite_loop', 'sleeps_forever'])('%s ends at the deadline, and its worker soon after', async (name) => {
    const raw = await processFor(transport, 'raw')
    const before = await pidOf(raw)
    const failure = await failureOf(raw.invoke(name, undefined, { timeoutMs: 100 }))
    expect(failure).toBeInstanceOf(InvocationError)
    expect(failure.code).toBe('ERR_INVOCATION_TIMEOUT')
    await expectReplaced(raw, before)
    expect(() => raw.invokeSync(name, undefined, { timeoutMs: 100 })).toThrow(
      expect.objectContaining({ code: 'ERR_INVOCATION_TIMEOUT' }),
    )
    await pidOf(raw)
  })

  it('close_descriptors takes nothing from anybody but its own worker', async () => {
    const raw = await processFor(transport, 'raw')
    const outcome = await raw.invoke('close_descriptors', bytesOf('input')).then(textOf, (error: unknown) => error)
    // Without its descriptors a worker may still have handed over the result.
    if (typeof outcome === 'string') expect(outcome).toBe('input')
    else expect(outcome).toMatchObject({ code: 'ERR_WORKER_CRASHED' })
    await expect.poll(() => say(raw, 'copy', 'goes on').catch(() => ''), { timeout: 50_000 }).toBe('goes on')
    expect(await raw.state.get('kept')).toEqual(new Uint8Array(bytesOf('state')))
  })

  it('leaves low descriptors to functions, and no gap among them', async () => {
    const pid = await pidOf(await processFor(transport, 'raw'))
    const low = Array.from({ length: 61 }, (_, index) => readlinkSync(`/proc/${pid}/fd/${index + 3}`))
    expect(new Set(low)).toEqual(new Set(['/dev/null']))
  })

  it('forks: the copy of the worker is none, and goes', async () => {
    const raw = await processFor(transport, 'raw')
    const pid = await pidOf(raw)
    for (let call = 0; call < 5; call++) expect(await say(raw, 'forks', 'input')).toBe('input')
    expect(await pidOf(raw)).toBe(pid)
    const copies = childrenOf(pid)
    for (const copy of copies) await untilGone(copy)
  })

  it('leaves_a_child: which ends with its worker at the latest', async () => {
    const raw = await processFor(transport, 'raw')
    const pid = await pidOf(raw)
    const child = Buffer.from(await raw.invoke('leaves_a_child')).readUInt32LE()
    expect(await pidOf(raw)).toBe(pid)
    expect(await say(raw, 'copy', 'goes on')).toBe('goes on')
    if (isRunning(child)) {
      await failureOf(raw.invoke('aborts'))
      await untilGone(child)
    }
    await expect.poll(() => say(raw, 'copy', 'goes on').catch(() => ''), { timeout: 50_000 }).toBe('goes on')
  })

  it.each(['segfault', 'divide_by_zero', 'aborts'])('%s leaves calls in other workers alone', async (name) => {
    const pair = await processFor(transport, 'both', 2)
    await untilReady(pair, 2)
    const abort = new AbortController()
    const running = failureOf(pair.invoke('until_cancelled', bytesOf('c/survived'), { signal: abort.signal }))
    await expect.poll(() => pair.state.get('c/running')).toBeDefined()
    for (let crash = 0; crash < 3; crash++) {
      expect(await failureOf(pair.invoke(name))).toMatchObject({ code: 'ERR_WORKER_CRASHED' })
      expect(Buffer.compare(await pair.invoke('copy', pattern(100_000)), pattern(100_000))).toBe(0)
    }
    abort.abort(new Error('enough'))
    expect((await running).message).toBe('enough')
    await expect.poll(async () => textOf((await pair.state.get('c/survived')) ?? bytesOf(''))).toBe('cancelled')
  })

  it('a crash releases the locks of the call, and no others', async () => {
    const pair = await processFor(transport, 'both', 2)
    const mine = await pair.state.lock('mine')
    expect(await failureOf(pair.invoke('lock_and_die', bytesOf('its')))).toMatchObject({ signal: 'SIGABRT' })
    await using _its = await pair.state.lock('its', 'write', { timeoutMs: 20_000 })
    expect(await failureOf(pair.state.lock('mine', 'read', { timeoutMs: 20 }))).toMatchObject({
      code: 'ERR_STATE_LOCK_TIMEOUT',
    })
    await mine.release()
  })
})
