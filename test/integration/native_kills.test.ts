/** Native workers and their hosts that are killed, and memory that native functions may take. */
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { Process } from '../../src/client/process.js'
import type { FunctionError, WorkerError } from '../../src/errors.js'
import { clusterForTest, failureOf, startCluster, untilGone, type TestCluster } from '../support/cluster.js'
import {
  bytesOf,
  libraries,
  processBy,
  say,
  textOf,
  transports,
  untilReady,
  workerPids,
  type Transport,
} from '../support/native.js'
import { sanitized } from '../support/sanitized.js'

let started: TestCluster
beforeAll(async () => {
  started = await startCluster()
  await started.cluster.deploy({
    native: libraries.c,
    name: 'c',
    functions: {
      ...Object.fromEntries(['echo', 'state_array', 'until_cancelled', 'scratch'].map((name) => [name, {}])),
      again: { symbol: 'until_cancelled', idempotent: true },
    },
  })
  await started.cluster.deploy({ native: libraries.rfaas, name: 'raw' })
  await started.cluster.deploy({ native: libraries.praas, name: 'praas' })
})
afterAll(() => started.close())

let processes = 0
async function processFor(transport: Transport, app: string, options: object = {}): Promise<Process> {
  const id = `${app}-${++processes}`
  const created = await started.cluster.process(id, { app, workers: 1, ...options })
  onTestFinished(() => created.stop())
  return processBy(transport, started, id)
}

/** The pid of its only worker. */
async function onlyWorker(of: Process): Promise<number> {
  const [pid] = await untilReady(of, 1)
  if (pid === undefined) throw new Error('there is no worker')
  return pid
}

const untilRunning = (process: Process) =>
  expect.poll(() => process.state.get('c/running'), { timeout: 50_000 }).toBeDefined()

describe.each(transports)('a native worker that is killed, over %s', (transport) => {
  it('fails its call, and is replaced', async () => {
    const process = await processFor(transport, 'c')
    await process.state.set('kept', bytesOf('state'))
    const call = failureOf(process.invoke('until_cancelled', bytesOf('c/never')))
    await untilRunning(process)
    const pid = await onlyWorker(process)
    globalThis.process.kill(pid, 'SIGKILL')
    expect(await call).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGKILL' })
    await untilGone(pid)
    expect(await say(process, 'echo', 'goes on')).toBe('goes on')
    expect(await onlyWorker(process)).not.toBe(pid)
    expect(textOf((await process.state.get('kept')) ?? new Uint8Array())).toBe('state')
    expect(await process.state.get('c/never')).toBeUndefined()
  })

  it('is no failure for a call that may be repeated', async () => {
    const process = await processFor(transport, 'c')
    const abort = new AbortController()
    const call = failureOf(process.invoke('again', bytesOf('c/again'), { signal: abort.signal }))
    await untilRunning(process)
    await process.state.delete('c/running')
    globalThis.process.kill(await onlyWorker(process), 'SIGKILL')
    await untilRunning(process)
    abort.abort(new Error('enough'))
    expect((await call).message).toBe('enough')
    await expect.poll(async () => textOf((await process.state.get('c/again')) ?? new Uint8Array())).toBe('cancelled')
  })

  it('is one when the caller says so', async () => {
    const process = await processFor(transport, 'c')
    const call = failureOf(process.invoke('again', bytesOf('c/again'), { idempotent: false }))
    await untilRunning(process)
    globalThis.process.kill(await onlyWorker(process), 'SIGKILL')
    expect(await call).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGKILL' })
  })

  it('while it has nothing to do is replaced', async () => {
    const process = await processFor(transport, 'raw', { workers: 2 })
    const before = await untilReady(process, 2)
    for (const pid of before) globalThis.process.kill(pid, 'SIGKILL')
    for (const pid of before) await untilGone(pid)
    expect(await say(process, 'copy', 'goes on')).toBe('goes on')
  })
})

describe('a host of native workers that is killed', () => {
  const hostOf = (process: Process): number => process.connection?.hostPid ?? 0

  it('takes them along, and comes back on the same state', async () => {
    const { cluster } = await clusterForTest({ app: libraries.c, workers: 2 })
    const process = await cluster.process('phoenix')
    expect(await say(process, 'state_array', 'array 4')).toBe('6')
    const running = failureOf(process.invoke('until_cancelled', bytesOf('c/never')))
    await untilRunning(process)
    const workers = await workerPids(process)
    globalThis.process.kill(hostOf(process), 'SIGKILL')
    expect((await running).code).toMatch(/ERR_HOST_LOST|ERR_CONNECTION_LOST/)
    for (const pid of workers) await untilGone(pid)
    await process.connect()
    expect(await say(process, 'state_array', 'array 4')).toBe('12')
    expect(await process.describe()).toMatchObject({ state: 'ready', restarts: 1 })
    expect(await process.state.get('c/never')).toBeUndefined()
  })

  it('is not noticed by calls that may be repeated', async () => {
    const { cluster } = await clusterForTest({ app: libraries.c })
    const process = await cluster.process('phoenix')
    expect(await say(process, 'idempotent')).toBe('again and again')
    globalThis.process.kill(hostOf(process), 'SIGKILL')
    expect(await say(process, 'idempotent', '', 50_000)).toBe('again and again')
  })
})

if (sanitized !== undefined) console.log(`that workers run out of memory is not tested: ${sanitized}`)

describe.each(transports)('memory of a native worker, over %s', (transport) => {
  it.skipIf(sanitized !== undefined).each([
    ['at once', 'allocate_10_gib', undefined],
    ['at once', 'allocate_10_gib', '64 MiB'],
    ['step by step', 'allocate_10_gib_slowly', '128 MiB'],
  ])('ends 10 GiB %s (%s, workerMemory %s)', async (_how, name, workerMemory) => {
    const process = await processFor(transport, 'raw', workerMemory === undefined ? {} : { workerMemory })
    const failure = (await failureOf(process.invoke(name))) as FunctionError | WorkerError
    expect(failure.code).toMatch(/^ERR_(FUNCTION_THREW|WORKER_CRASHED)$/)
    expect(`${failure.message} ${'stderr' in failure ? String(failure.stderr) : ''}`).toMatch(/bad_alloc/)
    // A function that kept what it got leaves its worker without: that one ends with the next call at the latest.
    await expect.poll(() => say(process, 'copy', 'goes on').catch(() => ''), { timeout: 50_000 }).toBe('goes on')
  })

  it('is refused by the headers with an error that says so', async () => {
    const process = await processFor(transport, 'praas', { workerMemory: '64 MiB' })
    const failure = (await failureOf(process.invoke('buffer_too_large'))) as FunctionError
    expect(failure.remote?.message).toContain('workerMemory')
    expect(await say(process, 'buffer_str', 'goes on')).toBe('<goes on>')
  })

  it('does not count state and payloads', async () => {
    const process = await processFor(transport, 'c', { workerMemory: '64 MiB', memory: '512 MiB' })
    expect(await say(process, 'state_array', `large ${2 ** 24}`)).toBe('2.51658e+07')
    expect((await process.invoke('echo', new Uint8Array(60 << 20))).byteLength).toBe(60 << 20)
    expect(await say(process, 'scratch')).toBe('scratch')
  })
})
