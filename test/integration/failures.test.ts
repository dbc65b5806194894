import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import { FunctionError, WorkerError } from '../../src/errors.js'
import {
  failureOf,
  fixtureApp,
  startCluster,
  untilGone,
  type FixtureApp,
  type TestCluster,
} from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ workers: 2 })
})
afterAll(() => started.close())

/** A process of its own, so that one test's deaths are not another's. */
async function processFor(id: string, options: object = {}): Promise<Process> {
  return started.cluster.process(id, options)
}

describe('a function that fails', () => {
  let process: Process
  beforeAll(async () => {
    process = await processFor('throwing')
  })

  it('shows its own error, with the lines of its source', async () => {
    const failure = (await failureOf(process.invoke('throwsError'))) as FunctionError
    expect(failure).toBeInstanceOf(FunctionError)
    expect(failure.code).toBe('ERR_FUNCTION_THREW')
    expect(failure.message).toBe('function throwsError threw RangeError: no such row')
    expect(failure.remote).toMatchObject({ name: 'RangeError', code: 'E_ROW' })
    expect(failure.remote?.stack).toMatch(new RegExp(`${fixtureApp}:\\d+:\\d+`))
    expect(failure.remote?.stack).toContain('caused by: Error: the index is stale')
    expect(inspect(failure)).toContain(fixtureApp)
  })

  it('does so when it fails later, or throws no error at all', async () => {
    expect((await failureOf(process.invoke('throwsLater'))).message).toContain('TypeError: later')
    expect((await failureOf(process.invoke('throwsText'))).message).toContain('only text')
    expect(() => process.invokeSync('throwsError')).toThrow(/RangeError: no such row/)
  })

  it.each(['shm', 'tcp'] as const)('gets all of a long error to its caller over %s', async (transport) => {
    const remote = await connect(undefined, { runtimeDir: started.directory.path, transport })
    onTestFinished(() => remote.close())
    const caller = await remote.process('throwing', { create: false })
    const fromFailure = (failure: unknown): void => {
      expect(failure).toBeInstanceOf(FunctionError)
      const { remote: told } = failure as FunctionError
      expect(told).toMatchObject({ name: 'RangeError', message: `${'x'.repeat(8192)}…` })
      expect(told?.stack?.match(/descend/g)?.length).toBeGreaterThan(100)
    }
    fromFailure(await failureOf(caller.invoke('throwsLong', Buffer.from('20000'))))
    try {
      caller.invokeSync('throwsLong', Buffer.from('20000'))
      expect.unreachable()
    } catch (error) {
      fromFailure(error)
    }
    expect(caller.transport).toBe(transport)
  })

  it('is told when its result is no bytes', async () => {
    const failure = await failureOf(process.invoke('wrongType'))
    expect(failure.code).toBe('ERR_FUNCTION_RESULT')
    expect(failure.message).toContain('wrongType returned an object of Object')
    expect(failure.message).toContain('defineFunction')
    expect((await failureOf(process.invoke('unprintable'))).code).toBe('ERR_FUNCTION_RESULT')
  })

  it('tells what it cannot decode', async () => {
    const failure = (await failureOf(process.invoke('add', Buffer.from('{'), { codec: 'raw' }))) as FunctionError
    expect(failure.remote).toMatchObject({ name: 'PayloadError', code: 'ERR_PAYLOAD_CODEC' })
  })
})

describe('a worker that dies', () => {
  it.each(['SIGKILL', 'SIGSEGV', 'SIGABRT'])(
    'by %s is reported with it and replaced, with state intact',
    async (signal) => {
      const process = await processFor(`killed-${signal}`)
      await process.state.set('kept', Buffer.from('state'))
      const failure = (await failureOf(process.invoke('killed', Buffer.from(signal)))) as WorkerError
      expect(failure).toBeInstanceOf(WorkerError)
      expect(failure).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal })
      expect(failure.stderr).toContain('about to be killed')
      expect(Buffer.from((await process.state.get('kept')) ?? []).toString()).toBe('state')
      expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
      await process.stop()
    },
  )

  it('by exiting is reported with its code', async () => {
    const process = await processFor('exiting')
    const failure = (await failureOf(process.invoke('exits'))) as WorkerError
    expect(failure).toMatchObject({ code: 'ERR_WORKER_CRASHED', exitCode: 3 })
    expect(failure.stderr).toContain('leaving with 3')
    await process.stop()
  })

  it('because of an unhandled rejection says so', async () => {
    const process = await processFor('unhandled')
    const failure = (await failureOf(process.invoke('unhandled'))) as WorkerError
    expect(failure.code).toBe('ERR_WORKER_CRASHED')
    expect(failure.stderr).toContain('unhandled rejection')
    expect(failure.stderr).toContain('nobody listens')
    expect(failure.stderr).toContain(fixtureApp)
    await process.stop()
  })

  it('leaves calls that others run alone', async () => {
    const process = await processFor('siblings')
    const sleeping = process.invoke('sleep', 300)
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    const pids = new Set<number>()
    const failure = await failureOf(process.invoke('killed'))
    expect(failure.code).toBe('ERR_WORKER_CRASHED')
    expect(await sleeping).toBe('slept')
    expect(pids.size).toBe(0)
    await process.stop()
  })

  it('is no failure for a call that may be repeated', async () => {
    const process = await processFor('repeated')
    expect(await process.invoke('crashesOnce')).toBe(2)
    await process.stop()
  })

  it('is one for a call that may not', async () => {
    const process = await processFor('not-repeated')
    expect(await failureOf(process.invoke('crashesOnce', undefined, { idempotent: false }))).toMatchObject({
      code: 'ERR_WORKER_CRASHED',
    })
    expect(await process.invoke('crashesOnce')).toBe(2)
    await process.stop()
  })
})

describe('a deadline', () => {
  it('answers the caller and aborts the function', async () => {
    const process = await processFor('deadlines')
    const { sleep } = process.functions<FixtureApp>()
    // Again while the machine is too busy for the function to begin before, or to say so within the grace time.
    const late = async (): Promise<string> => {
      expect(await failureOf(sleep(60_000, { timeoutMs: 100 }))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
      return Buffer.from((await process.state.get('aborted')) ?? []).toString()
    }
    await expect.poll(late).toBe('ERR_INVOCATION_TIMEOUT')
    expect(await sleep(1)).toBe('slept')
    expect(() => process.invokeSync('sleep', 60_000, { timeoutMs: 50 })).toThrow(
      expect.objectContaining({ code: 'ERR_INVOCATION_TIMEOUT' }),
    )
    await process.stop()
  })

  it('ends the worker of a function that does not listen', async () => {
    const process = await processFor('spinning', { workers: 1, graceMs: 50 })
    const call = failureOf(process.invoke('spins', undefined, { timeoutMs: 5_000 }))
    let pid = 0
    const spinning = async (): Promise<number> =>
      (pid = Number(Buffer.from((await process.state.get('spinning')) ?? []).toString()))
    await expect.poll(spinning).toBeGreaterThan(0)
    expect((await call).code).toBe('ERR_INVOCATION_TIMEOUT')
    await untilGone(pid)
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
    await process.stop()
  })

  it('is not needed to end the worker of a function that has returned and left it no time', async () => {
    const process = await processFor('occupied', { workers: 1 })
    const pid = Number(Buffer.from(await process.invoke('occupies')).toString())
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
    await untilGone(pid)
    await process.stop()
  })

  it('holds for calls that wait for a worker', async () => {
    const process = await processFor('waiting', { workers: 1 })
    const { sleep } = process.functions<FixtureApp>()
    const running = sleep(400)
    expect(await failureOf(sleep(0, { timeoutMs: 30 }))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
    expect(await running).toBe('slept')
    await process.stop()
  })
})

describe('an abort', () => {
  it('rejects with its reason and reaches the function', async () => {
    const process = await processFor('aborts')
    const { sleep } = process.functions<FixtureApp>()
    const abort = new AbortController()
    const reason = new Error('changed my mind')
    const call = failureOf(sleep(60_000, { signal: abort.signal }))
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    abort.abort(reason)
    expect(await call).toBe(reason)
    await expect
      .poll(async () => Buffer.from((await process.state.get('aborted')) ?? []).toString())
      .toBe('ERR_INVOCATION_CANCELLED')
    expect(await failureOf(sleep(1, { signal: abort.signal }))).toBe(reason)
    expect(await failureOf(sleep(60_000, { signal: AbortSignal.timeout(20) }))).toMatchObject({ name: 'TimeoutError' })
    await process.stop()
  })

  it('in the turn of the call leaves nothing to be done, and no failure that nobody hears of', async () => {
    const process = await processFor('aborts-at-once')
    const { state } = process
    const unheard: unknown[] = []
    const hear = (error: unknown): void => void unheard.push(error)
    globalThis.process.on('unhandledRejection', hear)
    onTestFinished(() => void globalThis.process.off('unhandledRejection', hear))
    const reason = new Error('never mind')
    const given = async (begin: (signal: AbortSignal) => Promise<unknown>): Promise<void> => {
      const abort = new AbortController()
      const call = failureOf(begin(abort.signal))
      abort.abort(reason)
      expect(await call).toBe(reason)
    }
    await given((signal) => state.get('missing', { signal }))
    await given((signal) => state.set('missing', Buffer.from('set'), { signal }))
    await given((signal) => state.lock('held', 'write', { signal }))
    await given((signal) => process.invoke('nowhere', undefined, { signal }))
    await given((signal) => process.invokeStream('nowhere', [], { signal }).next())
    await given((signal) => process.lease({ signal }))
    // Answers come in the order of requests.
    expect(await state.get('missing')).toBeUndefined()
    expect((await failureOf(process.invoke('nowhere'))).code).toBe('ERR_FUNCTION_UNKNOWN')
    await (await state.lock('held', 'write', { timeoutMs: 5_000 })).release()
    expect(await process.leases()).toMatchObject({ leases: [], totals: { leases: 0 } })
    await new Promise(setImmediate)
    expect(unheard).toEqual([])
    await process.stop()
  })

  it('of one in many cancels those in flight', async () => {
    const process = await processFor('aborts-many')
    const abort = new AbortController()
    const results = process.invokeMany('sleep', [60_000, 60_000], { signal: abort.signal })
    const next = failureOf(results.next())
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    abort.abort(new Error('enough'))
    expect((await next).message).toBe('enough')
    expect(await process.invoke('sleep', 1)).toBe('slept')
    await process.stop()
  })
})

describe('an application that cannot start', () => {
  it('fails the process with the reason', async () => {
    const failure = await failureOf(
      started.cluster.process('broken', { app: new URL('../fixtures/broken_app.ts', import.meta.url) }),
    )
    expect(failure.code).toBe('ERR_PROCESS_FAILED')
    expect(failure.message).toContain('refuses to start')
    expect((await started.cluster.processes()).map(({ id }) => id)).not.toContain('broken')
  })

  it('says what it has printed when it is not ready in time', async () => {
    const app = join(temporaryFolder(), 'app.ts')
    writeFileSync(app, `console.log('reads the grid'); await new Promise((done) => setTimeout(done, 2 ** 30))`)
    let failure = new Error()
    // However long that takes until it prints.
    for (let timeoutMs = 1_000; !failure.message.includes('reads the grid'); timeoutMs *= 2) {
      failure = await failureOf(started.cluster.process('slow', { app, timeoutMs }))
      expect(failure).toMatchObject({ code: 'ERR_CONNECTION_TIMEOUT' })
    }
    expect(failure.message).toMatch(/was not ready within \d+ ms; the end of what it has printed:\n.*reads the grid$/m)
    expect((await started.cluster.processes()).map(({ id }) => id)).not.toContain('slow')
  })

  it('is refused when it is not there or not named', async () => {
    expect(await failureOf(started.cluster.process('none', { app: '/nowhere/app.ts' }))).toMatchObject({
      code: 'ERR_DEPLOY_FAILED',
    })
    expect(await failureOf(started.cluster.process('none', { app: 'unheard-of' }))).toMatchObject({
      code: 'ERR_APP_UNKNOWN',
    })
  })
})
