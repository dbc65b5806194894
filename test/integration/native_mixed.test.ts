/** One application in TypeScript and native code. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import type { Process } from '../../src/client/process.js'
import type { FunctionError } from '../../src/errors.js'
import { failureOf, startCluster, untilGone, type TestCluster } from '../support/cluster.js'
import { compileLibrary, rawFunction } from '../support/compile.js'
import { writeFiles } from '../support/files.js'
import { bytesOf, libraries, say, uint32, untilReady, workerPids } from '../support/native.js'
import { handleOf, processAt } from '../support/process_at.js'
import { temporaryFolder } from '../support/temporary.js'

const app = fileURLToPath(new URL('../fixtures/mixed_app.ts', import.meta.url))

let started: TestCluster
/** One worker of each kind. */
let process: Process
beforeAll(async () => {
  started = await startCluster()
  const deployed = await started.cluster.deploy({
    app,
    native: [libraries.c, libraries.rfaas, libraries.praas],
    name: 'mixed',
  })
  expect(deployed).toMatchObject({ language: 'mixed', entry: app })
  expect(deployed.exports).toEqual(expect.arrayContaining(['upper', 'reverse', 'twice', 'buffer_str']))
  process = await started.cluster.process('mixed', { app: 'mixed', workers: 1 })
})
afterAll(() => started.close())

async function processFor(options: { workers?: number; nativeWorkers?: number } = {}): Promise<Process> {
  const created = await started.cluster.process(`own-${Math.random()}`, { app: 'mixed', workers: 1, ...options })
  onTestFinished(() => created.stop())
  return created
}

describe('calls', () => {
  it.each([
    ['TypeScript', 'upper abc', 'ABC'],
    ['C', 'reverse abc', 'cba'],
    ['rFaaS', 'copy abc', 'abc'],
    ['PraaS', 'buffer_str abc', '<abc>'],
  ])('reach functions in %s from TypeScript, C and PraaS', async (_language, input, output) => {
    expect(await say(process, 'call', input)).toBe(output)
    expect(await say(process, 'invoke', input)).toBe(output)
    const [name = '', argument = ''] = input.split(' ')
    expect(await say(process, name, argument)).toBe(output)
    if (name !== 'upper') expect(await say(process, 'callSync', input)).toBe(output)
  })

  it('go back and forth with one worker of each kind', async () => {
    expect(await say(process, 'call', 'invoke call invoke call invoke upper abc')).toBe('ABC')
    expect(await say(process, 'invoke', 'call invoke call invoke call reverse abc')).toBe('cba')
  })

  it.each([8, 16, 32])('go back and forth with one worker of each kind, %i at a time', async (count) => {
    const own = await processFor()
    const chains = Array.from({ length: count }, (_, index) =>
      index % 2
        ? say(own, 'call', `invoke call reverse ${index}x`, 10_000)
        : say(own, 'invoke', `call invoke reverse ${index}x`, 10_000),
    )
    const wanted = Array.from({ length: count }, (_, index) => `x${[...String(index)].reverse().join('')}`)
    expect(await Promise.all(chains)).toEqual(wanted)
  })

  it('find functions of the other language as soon as they are made, also of a new host', async () => {
    const folder = temporaryFolder()
    const gate = join(folder, 'gate')
    // Loads as long as the gate is shut: native workers are ready by then.
    const slow = `import { existsSync } from 'node:fs'
      const never = new Int32Array(new SharedArrayBuffer(4))
      while (!existsSync(${JSON.stringify(gate)})) Atomics.wait(never, 0, 0, 5)
      export * from ${JSON.stringify(app)}`
    writeFiles(folder, { gate: '', 'slow.ts': slow })
    await started.cluster.deploy({ app: join(folder, 'slow.ts'), native: libraries.c, name: 'slow' })
    const own = await started.cluster.process('slow', { app: 'slow', workers: 1 })
    onTestFinished(() => own.stop())
    const [former] = await untilReady(own, 1)
    const handle = await handleOf(started, 'slow')
    // It is told what was true before the host's death, as clients are whose agent has not missed it yet.
    const client = processAt(handle)

    rmSync(gate)
    globalThis.process.kill(handle.process.pid ?? 0, 'SIGKILL')
    await untilGone(handle.process.pid ?? 0)
    const restarted = async (): Promise<boolean> => {
      const workers = (await started.cluster.processes()).find(({ id }) => id === 'slow')?.workers ?? []
      return workers.some(({ kind, state, pid }) => kind === 'native' && state === 'ready' && pid !== former)
    }
    await expect.poll(restarted, { interval: 20 }).toBe(true)
    await client.connect()
    // The native worker could run it, but would not find what it calls.
    await expect(say(client, 'invoke', 'upper abc', 300)).rejects.toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
    writeFiles(folder, { gate: '' })
    expect(await say(client, 'invoke', 'upper abc')).toBe('ABC')
  })

  it('say how deep they are', async () => {
    expect(JSON.parse(await say(process, 'call', 'invoke call about'))).toMatchObject({ depth: 3, process: 'mixed' })
  })

  it('carry megabytes', async () => {
    const large = 'praas'.repeat(400_000)
    expect(await say(process, 'call', `reverse ${large}`)).toBe([...large].reverse().join(''))
  })

  it('bring failures of TypeScript to native code', async () => {
    expect(await say(process, 'invoke', 'tsThrows x')).toMatch(
      /^ERR_FUNCTION_THREW: .*RangeError.*thrown in TypeScript: x/,
    )
    expect(await say(process, 'invoke_by_name', 'tsThrows')).toMatch(/^ERR_FUNCTION|^1 .*thrown in TypeScript: input/)
  })

  it('bring failures of native code to TypeScript', async () => {
    const failing = async (input: string): Promise<unknown> => process.invoke('failureOf', bytesOf(input))
    expect(await failing('fails x')).toMatchObject({
      code: 'ERR_FUNCTION_THREW',
      message: expect.stringContaining('asked to fail with 42 and x') as string,
    })
    expect(await failing('returns_seven')).toMatchObject({
      message: expect.stringContaining('return code 7') as string,
    })
    expect(await failing('nowhere')).toMatchObject({ code: 'ERR_FUNCTION_UNKNOWN' })
  })

  it('that nobody is left to serve end at the deadline at the latest', async () => {
    const own = await processFor()
    const failure = (await failureOf(
      own.invoke('callSync', bytesOf('invoke upper abc'), { timeoutMs: 1_000 }).then((bytes) => {
        throw Object.assign(new Error(String(bytes)), { code: Buffer.from(bytes).toString() })
      }),
    )) as FunctionError
    expect(`${failure.code} ${failure.remote?.code ?? ''}`).toMatch(/ERR_INVOCATION_(DEADLOCK|TIMEOUT)/)
    await expect.poll(() => say(own, 'upper', 'abc').catch(() => ''), { timeout: 50_000 }).toBe('ABC')
  })
})

describe('state', () => {
  it('arrays are the same memory', async () => {
    expect(await say(process, 'tsArray', 'shared 8')).toBe('12')
    expect(await say(process, 'state_array', 'shared 8')).toBe('24')
    expect(await say(process, 'tsArray', 'shared 8')).toBe('36')
  })

  it.each([
    ['atomics', 'tsCountAtomically', 'count_atomically', 20_000],
    ['a lock', 'tsCountLocked', 'count_locked', 200],
  ])('arrays are changed by both at once, with %s', async (_how, typescript, native, times) => {
    const own = await processFor({ workers: 2, nativeWorkers: 2 })
    await untilReady(own, 2)
    await untilReady(own, 2, 'node')
    const calls = Array.from({ length: 8 }, (_, index) =>
      own.invoke(index % 2 ? typescript : native, bytesOf(`counter ${times}`)),
    )
    await Promise.all(calls)
    expect(Buffer.from((await own.state.get('counter')) ?? []).readInt32LE()).toBe(8 * times)
  })

  it('locks of one language keep the other out', async () => {
    expect(await say(process, 'callLocked', 'door locks door 30')).toMatch(/^ERR_STATE_LOCK_TIMEOUT/)
    expect(await say(process, 'locks', 'door 30')).toMatch(/^OK OK/)
    expect(await say(process, 'callLocked', 'door reverse abc')).toBe('cba')
  })

  it('messages and values pass between them', async () => {
    await say(process, 'call', 'state_set both value')
    expect(await say(process, 'state_read', 'both')).toBe('value')
    await say(process, 'call', 'put box message')
    expect(await say(process, 'call', 'get box')).toBe('message')
  })
})

describe('workers', () => {
  it('are as many of each kind as was asked for', async () => {
    const own = await processFor({ workers: 2, nativeWorkers: 3 })
    expect(await untilReady(own, 3)).toHaveLength(3)
    expect(await untilReady(own, 2, 'node')).toHaveLength(2)
    const same = await processFor({ workers: 2 })
    await untilReady(same, 2)
    await untilReady(same, 2, 'node')
  })

  it('of one kind are left alone by crashes of the other', async () => {
    const own = await processFor()
    const [native] = await untilReady(own, 1)
    const [node] = await untilReady(own, 1, 'node')
    expect(await failureOf(own.invoke('segfault'))).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGSEGV' })
    expect(await own.invoke('nodePid')).toBe(node)
    expect(await say(own, 'call', 'reverse abc')).toBe('cba')
    const replaced = Buffer.from(await own.invoke('worker_pid')).readUInt32LE()
    expect(replaced).not.toBe(native)
    expect(await failureOf(own.invoke('dies'))).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGKILL' })
    expect(Buffer.from(await own.invoke('worker_pid')).readUInt32LE()).toBe(replaced)
    expect(await say(own, 'invoke', 'upper abc')).toBe('ABC')
    await expect.poll(() => workerPids(own)).toEqual([replaced])
  })

  it('tell their callers in the other language how they died', async () => {
    const own = await processFor()
    const [node] = await untilReady(own, 1, 'node')
    expect(await own.invoke('failureOf', bytesOf('segfault'))).toMatchObject({
      code: 'ERR_WORKER_CRASHED',
      signal: 'SIGSEGV',
    })
    expect(await own.invoke('nodePid')).toBe(node)
    const overrun = Buffer.concat([bytesOf('overrun_byte '), uint32(2 ** 20)])
    expect(await own.invoke('failureOf', overrun)).toMatchObject({ code: 'ERR_WORKER_CRASHED' })
    // The one that has taken the place of the worker that died, of whose end the agent may not have heard yet.
    const native = Buffer.from(await own.invoke('worker_pid')).readUInt32LE()
    expect(await say(own, 'invoke', 'dies')).toMatch(/^ERR_WORKER_CRASHED: .*"signal":9/)
    await expect.poll(() => workerPids(own)).toEqual([native])
  })
})

describe('a name that is offered twice', () => {
  it('by TypeScript and a library is refused', async () => {
    const folder = temporaryFolder()
    writeFiles(folder, { 'app.ts': 'export const reverse = (input: Uint8Array): Uint8Array => input' })
    const failure = await failureOf(started.cluster.deploy({ app: join(folder, 'app.ts'), native: libraries.c }))
    expect(failure.code).toBe('ERR_DEPLOY_FAILED')
    expect(failure.message).toContain('reverse')
    const functions = { backwards: { symbol: 'reverse' } }
    const both = await started.cluster.deploy({
      app: join(folder, 'app.ts'),
      native: libraries.c,
      name: 'twice',
      functions,
    })
    expect(both.exports).toEqual(['reverse', 'backwards'])
  })

  it('by two libraries is refused until one is chosen', async () => {
    const folder = temporaryFolder()
    const other = join(folder, 'libother.so')
    compileLibrary(other, rawFunction('copy'))
    const native = [libraries.rfaas, other]
    const failure = await failureOf(started.cluster.deploy({ native, name: 'two' }))
    expect(failure.code).toBe('ERR_DEPLOY_FAILED')
    expect(failure.message).toContain(other)
    expect(failure.message).toContain(libraries.rfaas)
    const chosen = await started.cluster.deploy({
      native,
      name: 'two',
      functions: { copy: { library: libraries.rfaas } },
    })
    expect(chosen.native).toMatchObject([{ name: 'copy', library: libraries.rfaas }])
  })
})
