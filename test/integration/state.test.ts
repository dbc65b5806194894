import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Cluster } from '../../src/client/cluster.js'
import type { Process } from '../../src/client/process.js'
import type { FunctionError } from '../../src/errors.js'
import { native } from '../../src/native/binding.js'
import { packageRoot } from '../../src/package.js'
import { failureOf, startCluster, type FixtureApp, type TestCluster } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

const text = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString()

let started: TestCluster
let process: Process
beforeAll(async () => {
  started = await startCluster({ workers: 2, memory: '64 MiB' })
  process = await started.cluster.process('state')
})
afterAll(() => started.close())

/** Where node-gyp leaves it; what was built otherwise has none. */
const coreLibrary = join(packageRoot, 'build', 'Release', 'praas_core.a')
if (!existsSync(coreLibrary)) console.log(`${coreLibrary} is not there: locks that nobody can give up are not tested`)

function compileKeeper(): string {
  const program = join(temporaryFolder(), 'kept_state')
  const source = join(packageRoot, 'test', 'fixtures', 'kept_state.cc')
  const include = join(packageRoot, 'native')
  execFileSync('g++', ['-std=c++20', '-I', include, '-o', program, source, coreLibrary, '-ldl', '-lpthread', '-lrt'])
  return program
}

/** Somebody who is inside the state of a process, until the function is called. */
async function keepState(program: string, segment: string): Promise<() => Promise<void>> {
  const keeper = spawn(program, [segment], { stdio: ['pipe', 'pipe', 'inherit'] })
  onTestFinished(() => void keeper.kill())
  await once(keeper.stdout, 'data')
  return async () => {
    keeper.stdin.end()
    expect(await once(keeper, 'exit')).toEqual([0, null])
  }
}

describe('state in workers', () => {
  it('does what it says', async () => {
    const { stateTour } = process.functions<FixtureApp>()
    const tour = await stateTour(undefined)
    expect(tour).toMatchObject({
      growing: true,
      missed: true,
      created: true,
      view: 'ONE two',
      value: 'replaced',
      part: 'pla',
      end: 2,
      absent: true,
      keys: ['tour/a:value', 'tour/b:value', 'tour/grid:array'],
      deleted: [true, false],
    })
  })

  it('is one memory for all of them', async () => {
    const { increment } = process.functions<FixtureApp>()
    await Promise.all(Array.from({ length: 40 }, () => increment(1000)))
    expect(await increment(0)).toBe(40_000)
  })

  it.each([
    ['type', 'ERR_STATE_TYPE'],
    ['length', 'ERR_STATE_RANGE'],
    ['memory', 'ERR_STATE_MEMORY'],
    ['range', 'ERR_STATE_RANGE'],
    ['name', 'ERR_NAME_INVALID'],
  ])('refuses a wrong %s', async (what, code) => {
    const failure = (await failureOf(process.invoke('stateFailure', what))) as FunctionError
    expect(failure.remote?.code).toBe(code)
  })

  it('does not let views be kept', async () => {
    const one = await started.cluster.process('views', { workers: 1 })
    await one.invoke('keepsView', Buffer.from('kept'))
    expect(await one.invoke('keepsView', Buffer.from('next'))).toBe(0)
    await one.stop()
  })
})

describe('state in clients', () => {
  let other: Cluster
  let elsewhere: Process
  beforeAll(async () => {
    other = await connect(undefined, { runtimeDir: started.directory.path, transport: 'tcp' })
    elsewhere = await other.process('state')
  })
  afterAll(() => other.close())

  it('is the same for all of them', async () => {
    const version = await process.state.set('shared', Buffer.from('from one'))
    expect(await elsewhere.state.entry('shared')).toMatchObject({ version })
    expect(text(await elsewhere.state.get('shared'))).toBe('from one')
    const later = await elsewhere.state.append('shared', Buffer.from(', then two'))
    expect(later).toBeGreaterThan(version)
    expect(text(await process.state.read('shared', 5, 9))).toBe('one, then')
    expect(await process.state.delete('shared')).toBe(true)
    expect(await elsewhere.state.get('shared')).toBeUndefined()
    expect(await elsewhere.state.delete('shared')).toBe(false)
  })

  it('can be compared and set by one at a time', async () => {
    const version = await process.state.set('contested', { owner: 'nobody' }, { codec: 'json' })
    const wins = await Promise.all(
      [process, elsewhere].map((client, index) =>
        client.state.compareAndSet('contested', version, { owner: index }, { codec: 'json' }),
      ),
    )
    expect(wins.filter((won) => won !== undefined)).toHaveLength(1)
    expect(await process.state.compareAndSet('fresh', 0n, Buffer.from('x'))).toBeDefined()
    expect(await process.state.compareAndSet('fresh', 0n, Buffer.from('x'))).toBeUndefined()
    expect(await failureOf(process.state.set('fresh', Buffer.from('y'), { ifVersion: 1n }))).toMatchObject({
      code: 'ERR_STATE_VERSION',
    })
    expect(await failureOf(process.state.delete('fresh', { ifVersion: 1n }))).toMatchObject({
      code: 'ERR_STATE_VERSION',
    })
  })

  it('patches within a value', async () => {
    await process.state.set('patched', Buffer.from('abcdef'))
    await process.state.set('patched', Buffer.from('XY'), { offset: 2 })
    await process.state.set('patched', Buffer.from('Z'), { offset: 6 })
    expect(text(await process.state.get('patched'))).toBe('abXYefZ')
  })

  it('describes keys', async () => {
    const before = Date.now()
    await process.state.set('stat', new Uint8Array(1000))
    const info = await elsewhere.state.stat('stat')
    expect(info).toMatchObject({ key: 'stat', kind: 'value', byteLength: 1000 })
    expect(info?.modified.getTime()).toBeGreaterThanOrEqual(before - 1)
    expect(await process.state.stat('none')).toBeUndefined()
  })

  it('lists keys in order, however many', async () => {
    const names = Array.from({ length: 600 }, (_, index) => `many/${String(index).padStart(3, '0')}`)
    await Promise.all(names.map((name) => process.state.set(name, Buffer.from(name))))
    const found: string[] = []
    for await (const { key } of elsewhere.state.keys({ prefix: 'many/' })) found.push(key)
    expect(found).toEqual(names)
  })

  it('carries values of megabytes', async () => {
    const value = Buffer.alloc(5 << 20, 'praas')
    await elsewhere.state.set('large', value)
    expect(Buffer.compare((await process.state.get('large')) ?? Buffer.of(), value)).toBe(0)
    await process.state.delete('large')
  })

  it('says what is wrong', async () => {
    expect(
      await failureOf(
        process.state
          .set('full', new Uint8Array(60 << 20))
          .then(() => process.state.set('more', new Uint8Array(60 << 20))),
      ),
    ).toMatchObject({ code: 'ERR_STATE_MEMORY' })
    await process.state.delete('full')
    expect(await failureOf(process.state.read('none', 0, 1))).toMatchObject({ code: 'ERR_STATE_NOT_FOUND' })
    expect(await failureOf(process.state.get(''))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(await failureOf(process.state.set('x', 'text'))).toMatchObject({ code: 'ERR_PAYLOAD_CODEC' })
    expect(await failureOf(process.state.set('x', Buffer.of(), { offset: -1 }))).toMatchObject({
      code: 'ERR_ARGUMENT_INVALID',
    })
    expect(await failureOf(process.state.get('x', { tiemout: 1 } as never))).toMatchObject({
      code: 'ERR_ARGUMENT_INVALID',
    })
  })
})

describe('locks', () => {
  it('let one writer in at a time, of all workers', async () => {
    const runs = await Promise.all(Array.from({ length: 12 }, () => process.functions<FixtureApp>().locked('door')))
    expect(runs.every(({ others }) => others === 0)).toBe(true)
  })

  it('let readers in together, and keep writers out', async () => {
    const one = await process.state.lock('readers', 'read')
    const two = await process.state.lock('readers', 'read', { timeoutMs: 5_000 })
    expect(await failureOf(process.state.lock('readers', 'write', { timeoutMs: 30 }))).toMatchObject({
      code: 'ERR_STATE_LOCK_TIMEOUT',
    })
    await one.release()
    await one.release()
    await two.release()
    await using write = await process.state.lock('readers', 'write', { timeoutMs: 5_000 })
    expect(write).toMatchObject({ name: 'readers', mode: 'write', released: false })
  })

  it('of clients keep functions out', async () => {
    const held = await process.state.lock('client')
    expect(await process.invoke('lockTimesOut', 'client')).toBe('ERR_STATE_LOCK_TIMEOUT')
    await held.release()
    expect(await process.invoke('lockTimesOut', 'client')).toBe('granted')
  })

  it('are released with the invocation that forgot them', async () => {
    expect(await process.invoke('forgetsLock', 'forgotten')).toBe('held')
    await using _lock = await process.state.lock('forgotten', 'write', { timeoutMs: 5_000 })
  })

  it('are released with the worker that held them', async () => {
    const call = failureOf(process.invoke('holdsLock', 'dead worker'))
    await expect.poll(() => process.state.get('holder')).toBeDefined()
    globalThis.process.kill(Number(text(await process.state.get('holder'))), 'SIGKILL')
    await using _lock = await process.state.lock('dead worker', 'write', { timeoutMs: 20_000 })
    expect((await call).code).toBe('ERR_WORKER_CRASHED')
  })

  it('are released with the connection that held them', async () => {
    const other = await started.cluster.process('state')
    await other.state.lock('gone')
    other.close()
    await using _lock = await process.state.lock('gone', 'write', { timeoutMs: 20_000 })
  })

  it.each<[number, { backlog?: number }]>([
    [300, {}],
    [40, { backlog: 16 }],
  ])('are waited for %d times at once (%j)', async (times, options) => {
    const many = await started.cluster.process(`many-locks-${times}`, { workers: 1, ...options })
    let holders = 0
    const turns = Array.from({ length: times }, async () => {
      const lock = await many.state.lock('turn', 'write', { timeoutMs: 20_000 })
      expect(++holders).toBe(1)
      await many.state.set('last', Buffer.from('x'))
      holders -= 1
      await lock.release()
    })
    await Promise.all(turns)
    await many.stop()
  })

  describe.skipIf(!existsSync(coreLibrary))('that could not be given up in time', () => {
    /** A function waits for the lock, and somebody is inside the state. */
    async function waitingFor(name: string, signal?: AbortSignal) {
      const program = compileKeeper()
      const own = await started.cluster.process('kept', { workers: 1 })
      onTestFinished(() => own.stop())
      const { segment } = await own.describe()
      const waiting = (): boolean => native().inspectSegment(segment, 'kept').includes('"granted":false')
      const held = await own.state.lock('door')
      const call = own.invoke(name, 'door', signal ? { signal } : {})
      await expect.poll(waiting, { interval: 5 }).toBe(true)
      return { own, held, call, waiting, leave: await keepState(program, segment) }
    }

    it('end with their invocation', async () => {
      const { own, held, call, waiting, leave } = await waitingFor('lockTimesOutLate')
      expect(await call).toBe('ERR_STATE_LOCK_TIMEOUT')
      expect(waiting()).toBe(true)
      await leave()
      await held.release()
      // Nobody stands before this one any more.
      await using _lock = await own.state.lock('door', 'write', { timeoutMs: 5_000 })
    })

    it('are given up soon afterwards, though their invocation goes on', async () => {
      const abort = new AbortController()
      const { own, held, call, waiting, leave } = await waitingFor('goesOnWithoutLock', abort.signal)
      const ended = failureOf(call)
      await delay(2_500)
      expect(waiting()).toBe(true)
      await leave()
      await held.release()
      {
        await using _lock = await own.state.lock('door', 'write', { timeoutMs: 5_000 })
      }
      abort.abort(new Error('enough'))
      expect((await ended).message).toBe('enough')
    })
  })

  it('need not be waited for', async () => {
    const held = await process.state.lock('waited')
    const abort = new AbortController()
    const waiting = failureOf(process.state.lock('waited', 'write', { signal: abort.signal }))
    abort.abort(new Error('not now'))
    expect((await waiting).message).toBe('not now')
    await held.release()
    await using _again = await process.state.lock('waited', 'write', { timeoutMs: 5_000 })
  })
})
