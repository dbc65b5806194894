import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterEach, describe, expect, it, onTestFinished } from 'vitest'
import { cleanRuntimeDirectory } from '../../src/agent/clean.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import { compiledModule } from '../../src/package.js'
import {
  clusterForTest,
  expectNothingLeft,
  failureOf,
  fixtureApp,
  isRunning,
  startCluster,
  untilGone,
  type FixtureApp,
} from '../support/cluster.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

const text = (bytes: Uint8Array | undefined): string | undefined => bytes && Buffer.from(bytes).toString()

function hostPid(of: Process): number {
  const pid = of.connection?.hostPid
  if (pid === undefined) throw new Error('not connected')
  return pid
}

/** Takes the port of a host as soon as it can. Until then this thread does nothing, so no agent of it does. */
function takePort(port: number): ChildProcess {
  const taken = join(temporaryFolder(), 'taken')
  const program = `
    import { writeFileSync } from 'node:fs'
    import { createServer } from 'node:net'
    const take = () => createServer().on('error', take).listen(${port}, '127.0.0.1', () => writeFileSync(${JSON.stringify(taken)}, ''))
    take()`
  const taker = spawn(globalThis.process.execPath, ['--input-type=module', '--eval', program], { stdio: 'inherit' })
  onTestFinished(() => void taker.kill('SIGKILL'))
  while (!existsSync(taken)) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 5)
  return taker
}

describe('a host that is killed', () => {
  it('comes back elsewhere when its port is taken meanwhile', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('moved')
    await process.state.set('kept', Buffer.from('through death'))
    const { port } = await process.describe()
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    takePort(port)
    expect(text(await process.state.get('kept'))).toBe('through death')
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect((await process.describe()).port).not.toBe(port)
  })

  it('comes back on the same state and port, and clients with it', async () => {
    const { cluster } = await clusterForTest({ workers: 2 })
    const process = await cluster.process('phoenix')
    await process.state.set('kept', Buffer.from('through death'))
    await process.invoke('increment', 7)
    const before = await process.describe()
    const workers = before.workers.map(({ pid }) => pid)
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    // A call that may run more than once does not notice.
    expect(await process.invoke('add', { a: 1, b: 2 }, { timeoutMs: 40_000 })).toBe(3)
    expect(text(await process.state.get('kept'))).toBe('through death')
    expect(await process.invoke('increment', 0)).toBe(7)
    const after = await process.describe()
    expect(after).toMatchObject({ state: 'ready', port: before.port, restarts: 1, attached: false })
    expect(after.pid).not.toBe(before.pid)
    for (const pid of workers) await untilGone(pid)
  })

  it('fails the calls that were running, and only those', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('phoenix')
    const { sleep } = process.functions<FixtureApp>()
    const running = failureOf(sleep(60_000))
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    expect((await running).code).toMatch(/ERR_HOST_LOST|ERR_CONNECTION_LOST/)
    expect(await sleep(1)).toBe('slept')
  })

  it('leaves memory of its clients to calls that are repeated, and to them', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('phoenix')
    await process.invoke('echo', Buffer.from('known'))
    const input = process.allocate(100_000)
    input.fill(7)
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    const options = { idempotent: true, timeoutMs: 40_000 }
    expect(Buffer.from(await process.invoke('echo', input, options)).equals(Buffer.alloc(100_000, 7))).toBe(true)
    process.release(input)
    expect(() => process.release(new Uint8Array(8))).toThrow(expect.objectContaining({ code: 'ERR_ARGUMENT_INVALID' }))
    const another = process.allocate(100_000)
    process.release(another)
    expect(another.byteLength).toBe(0)
  })

  it('gives results of calls other memory than what the connection before had lent for them', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('phoenix')
    await process.invoke('echo', Buffer.from('known'))
    const input = process.allocate(100_000).fill(7)
    const output = process.allocate(100_001).fill(1)
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    // Until then workers may still take the call, and answer it where they were told to.
    await expect.poll(() => process.connection).toBeUndefined()
    const options = { idempotent: true, timeoutMs: 40_000, output }
    const result = await process.invoke('echo', input, options)
    expect(Buffer.from(result).equals(Buffer.alloc(100_000, 7))).toBe(true)
    expect(Buffer.from(process.invokeSync('echo', Buffer.from('again'), { output })).toString()).toBe('again')
    // Whoever had begun the call may still be writing to it.
    expect(output.every((byte) => byte === 1)).toBe(true)
    process.release(output)
    expect(await failureOf(process.invoke('echo', input, options))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    const foreign = failureOf(process.invoke('echo', input, { output: new Uint8Array(100_000) }))
    expect(await foreign).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
  })

  it('is told to who calls synchronously, until there is a connection again', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('phoenix')
    expect(process.invokeSync('add', { a: 1, b: 1 })).toBe(2)
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    await expect.poll(() => process.connection).toBeUndefined()
    expect(() => process.invokeSync('add', { a: 1, b: 1 })).toThrow(expect.objectContaining({ code: 'ERR_HOST_LOST' }))
    await process.connect()
    expect(process.invokeSync('add', { a: 1, b: 1 })).toBe(2)
  })

  it('releases the locks of its clients', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('phoenix')
    const lock = await process.state.lock('door')
    globalThis.process.kill(hostPid(process), 'SIGKILL')
    await expect.poll(() => process.connection).toBeUndefined()
    expect(await failureOf(lock.release())).toMatchObject({ code: 'ERR_STATE_LOCK_LOST' })
    await using _again = await process.state.lock('door', 'write', { timeoutMs: 30_000 })
  })

  it('again and again is started with pauses, and works in the end', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('phoenix')
    for (let death = 1; death <= 4; death++) {
      await process.connect()
      globalThis.process.kill(hostPid(process), 'SIGKILL')
      await expect.poll(() => process.connection).toBeUndefined()
    }
    expect(await process.invoke('add', { a: 2, b: 2 }, { timeoutMs: 50_000 })).toBe(4)
    expect((await process.describe()).restarts).toBe(4)
  })
})

describe('a client that is killed', () => {
  it('leaves its process to others, without its locks and calls', async () => {
    const { cluster, directory } = await clusterForTest({ workers: 1 })
    const process = await cluster.process('survivor')
    const program = `
      import { connect } from ${JSON.stringify(compiledModule('index.js'))}
      const cluster = await connect(undefined, { runtimeDir: ${JSON.stringify(directory.path)} })
      const process_ = await cluster.process('survivor')
      await process_.state.lock('door')
      const buffers = process_.allocate(1 << 20)
      process_.invoke('sleep', 60_000)
      process.stdout.write('busy')
      setInterval(() => buffers, 1000)`
    const child = spawn(globalThis.process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    await once(child.stdout, 'data')
    await expect.poll(() => process.state.get('sleeping')).toBeDefined()
    child.kill('SIGKILL')
    await once(child, 'exit')
    await using _door = await process.state.lock('door', 'write', { timeoutMs: 30_000 })
    // The only worker is free again: what it ran was cancelled.
    expect(await process.invoke('add', { a: 1, b: 2 }, { timeoutMs: 40_000 })).toBe(3)
  })
})

describe('an agent that is killed', () => {
  let child: ChildProcess | undefined
  afterEach(() => child?.kill('SIGKILL'))

  /** `praas run` in a folder of its own. */
  async function run(runtimeDir: string, ...options: string[]): Promise<ChildProcess> {
    const started = spawn(
      globalThis.process.execPath,
      [
        compiledModule('cli/main.js'),
        'run',
        fixtureApp,
        '-p',
        'kept',
        '--memory',
        '64MiB',
        '--json',
        '--runtime-dir',
        runtimeDir,
        ...options,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    await once(started.stdout, 'data')
    return started
  }

  it('takes its hosts and workers with it; the next one finds the state', async () => {
    const runtimeDir = temporaryFolder()
    const directory = RuntimeDirectory.open(runtimeDir)
    child = await run(runtimeDir)
    const first = await connect(undefined, { runtimeDir })
    const process = await first.process('kept', { create: false })
    await process.state.set('message', Buffer.from('still here'))
    const { pid, workers, segment } = await process.describe()
    await first.close()
    child.kill('SIGKILL')
    for (const gone of [pid ?? 0, ...workers.map((worker) => worker.pid)]) await untilGone(gone)
    expect(readdirSync('/dev/shm')).toContain(segment.slice(1))
    expect(await failureOf(connect(undefined, { runtimeDir }))).toMatchObject({ code: 'ERR_CLUSTER_UNREACHABLE' })

    child = await run(runtimeDir)
    expect(readdirSync(join(runtimeDir, 'agents'))).toEqual([expect.stringContaining(`-${child.pid}-`)])
    const second = await connect(undefined, { runtimeDir })
    const again = await second.process('kept', { create: false })
    expect(text(await again.state.get('message'))).toBe('still here')
    expect((await again.describe()).attached).toBe(true)
    await second.close()
    child.kill('SIGTERM')
    expect(await once(child, 'exit')).toEqual([0, null])
    expectNothingLeft(directory, 'kept')
  })

  it('leaves what `praas clean` removes, and nothing of the living', async () => {
    const runtimeDir = temporaryFolder()
    const directory = RuntimeDirectory.open(runtimeDir)
    child = await run(runtimeDir)
    const living = await startCluster({ runtimeDir })
    onTestFinished(() => living.close())
    const alive = await living.cluster.process('alive')
    const client = await connect(undefined, { runtimeDir })
    const { pid } = await (await client.process('kept', { create: false })).describe()
    await client.close()
    child.kill('SIGKILL')
    await untilGone(pid ?? 0)
    const agents = join(runtimeDir, 'agents')
    const dead = readdirSync(agents).filter((name) => name.includes(`-${child?.pid}-`))
    expect(dead).toHaveLength(1)
    const leftovers = cleanRuntimeDirectory(directory, { dryRun: true })
    expect(leftovers.removed).toContainEqual({ kind: 'agent', name: join(agents, dead[0] ?? '') })
    expect(readdirSync(agents)).toHaveLength(2)
    const command = [compiledModule('cli/main.js'), 'clean', '--json', '--runtime-dir', runtimeDir]
    const { stdout } = await promisify(execFile)(globalThis.process.execPath, command)
    const { removed, alive: living_ } = JSON.parse(stdout) as {
      removed: { kind: string; name: string }[]
      alive: number
    }
    expect(removed.map(({ kind }) => kind)).toEqual(['shm', 'agent'])
    expect(leftovers.removed).toEqual(expect.arrayContaining(removed))
    expect(living_).toBe(1)
    expect(readdirSync(agents)).toEqual([expect.stringContaining(`-${globalThis.process.pid}-`)])
    expectNothingLeft(directory, 'kept')
    expect(cleanRuntimeDirectory(directory)).toMatchObject({ removed: [], alive: 1 })
    expect(await alive.invoke('add', { a: 1, b: 1 })).toBe(2)
  })

  it('keeps a second one from serving the same process while it lives', async () => {
    const runtimeDir = temporaryFolder()
    child = await run(runtimeDir)
    const command = [
      compiledModule('cli/main.js'),
      'run',
      fixtureApp,
      '-p',
      'kept',
      '--json',
      '--runtime-dir',
      runtimeDir,
    ]
    const failure = (await failureOf(promisify(execFile)(globalThis.process.execPath, command))) as unknown as {
      stderr: string
      code: number
    }
    expect(failure.code).toBe(1)
    expect(failure.stderr).toContain('ERR_PROCESS_BUSY')
    const client = await connect(undefined, { runtimeDir })
    const process = await client.process('kept', { create: false })
    expect(await process.invoke('add', { a: 1, b: 1 })).toBe(2)
    await client.close()
    child.kill('SIGINT')
    expect(await once(child, 'exit')).toEqual([0, null])
  })
})

it('calls of a function that nobody knows yet have their own time each', async () => {
  const { cluster, directory } = await clusterForTest()
  await cluster.process('slow')
  const client = await connect(undefined, { runtimeDir: directory.path, transport: 'tcp' })
  onTestFinished(() => client.close())
  const process = await client.process('slow')
  const pid = hostPid(process)
  globalThis.process.kill(pid, 'SIGSTOP')
  const call = (options: object): Promise<unknown> => process.invoke('add', { a: 1, b: 2 }, options)
  const first = failureOf(call({ timeoutMs: 200 }))
  const second = call({ timeoutMs: 60_000 })
  const abort = new AbortController()
  const aborted = failureOf(call({ timeoutMs: 60_000, signal: abort.signal }))
  expect(await first).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
  expect(await failureOf(call({ timeoutMs: 200 }))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
  abort.abort(new Error('enough'))
  expect((await aborted).message).toBe('enough')
  globalThis.process.kill(pid, 'SIGCONT')
  expect(await second).toBe(3)
})

describe('the state of a process', () => {
  it('is not touched when it cannot be used', async () => {
    const { cluster, directory } = await clusterForTest()
    const { segment, folder } = directory.processPaths('foreign')
    const path = join('/dev/shm', segment)
    writeFileSync(path, 'made by something else')
    onTestFinished(() => rmSync(path, { force: true }))
    expect(await failureOf(cluster.process('foreign'))).toMatchObject({ code: 'ERR_SEGMENT_INVALID' })
    expect(readFileSync(path, 'utf8')).toBe('made by something else')
    rmSync(folder, { recursive: true })
  })

  it.each(['removed', 'emptied'])('that is %s is missed by the next host', async (how) => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('robbed')
    await process.state.set('kept', Buffer.from('as it was thought'))
    const path = join('/dev/shm', (await process.describe()).segment)
    if (how === 'removed') rmSync(path)
    const pid = hostPid(process)
    globalThis.process.kill(pid, 'SIGKILL')
    if (how === 'emptied') truncateSync(path)
    await untilGone(pid)
    const failure = await failureOf(process.state.get('kept'))
    expect(failure).toMatchObject({ code: 'ERR_SEGMENT_INVALID' })
    expect((failure as Error).message).toContain('the state of process "robbed" with it; remove the process')
    await cluster.stop('robbed')
    const anew = await cluster.process('robbed')
    expect(await anew.state.get('kept')).toBeUndefined()
  })

  it('is kept when asked for, and found by the next process of its id', async () => {
    const runtimeDir = temporaryFolder()
    const first = await startCluster({ runtimeDir, keep: true })
    const process = await first.cluster.process('kept')
    await process.state.set('message', Buffer.from('kept'))
    await first.close()
    const second = await startCluster({ runtimeDir })
    const again = await second.cluster.process('kept')
    expect(text(await again.state.get('message'))).toBe('kept')
    await again.stop({ keep: true })
    const third = await second.cluster.process('kept')
    expect(text(await third.state.get('message'))).toBe('kept')
    await third.stop()
    const fourth = await second.cluster.process('kept')
    expect(await fourth.state.get('message')).toBeUndefined()
    await second.close()
  })

  it('is kept when the next process of its id does not come to serve it in time', async () => {
    const { cluster } = await clusterForTest()
    const process = await cluster.process('kept')
    await process.state.set('message', Buffer.from('kept'))
    await process.stop({ keep: true })
    expect(await failureOf(cluster.process('kept', { timeoutMs: 1 }))).toMatchObject({ code: 'ERR_CONNECTION_TIMEOUT' })
    const again = await cluster.process('kept')
    expect(text(await again.state.get('message'))).toBe('kept')
  })

  it('goes with a cluster that could not start', async () => {
    const runtimeDir = temporaryFolder()
    for (const app of [new URL('file://elsewhere/app.ts'), '/nowhere/app.ts']) {
      await failureOf(Cluster.local({ app, runtimeDir }))
      expect(readdirSync(join(runtimeDir, 'agents'))).toEqual([])
    }
  })

  it('is of one of the clusters of a program, in whichever thread', async () => {
    const runtimeDir = temporaryFolder()
    const folder = temporaryFolder()
    writeFiles(folder, {
      'thread.mjs': `
import { on } from 'node:events'
import { parentPort } from 'node:worker_threads'
import { Cluster } from ${JSON.stringify(compiledModule('index.js'))}
const cluster = await Cluster.local(${JSON.stringify({ app: fixtureApp, runtimeDir, memory: '64MiB' })})
for await (const [id] of on(parentPort, 'message')) {
  if (id === undefined) break
  parentPort.postMessage(await (await cluster.process(id)).invoke('add', { a: 1, b: 2 }))
}
await cluster.close()`,
      'program.mjs': `
import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
const [first, second] = [1, 2].map(() => new Worker(new URL('thread.mjs', import.meta.url)))
const sums = []
const call = async (thread, id) => {
  thread.postMessage(id)
  sums.push(...(await once(thread, 'message')))
}
const end = (thread) => {
  thread.postMessage(undefined)
  return once(thread, 'exit')
}
await call(first, 'a')
await call(second, 'b')
await end(first)
await call(second, 'c')
await end(second)
process.stdout.write(JSON.stringify(sums))`,
    })
    const { stdout } = await promisify(execFile)(globalThis.process.execPath, [join(folder, 'program.mjs')])
    expect(JSON.parse(stdout)).toEqual([3, 3, 3])
    expect(readdirSync(join(runtimeDir, 'agents'))).toEqual([])
  })

  it('goes with a program that ends without closing its cluster', async () => {
    const runtimeDir = temporaryFolder()
    const directory = RuntimeDirectory.open(runtimeDir)
    const program = `
      import { Cluster } from ${JSON.stringify(compiledModule('index.js'))}
      const cluster = await Cluster.local({ app: ${JSON.stringify(fixtureApp)}, runtimeDir: ${JSON.stringify(runtimeDir)} })
      const forgotten = await cluster.process('forgotten')
      process.stdout.write(JSON.stringify(await forgotten.describe()))`
    const { stdout } = await promisify(execFile)(globalThis.process.execPath, [
      '--input-type=module',
      '--eval',
      program,
    ])
    const { pid, workers } = JSON.parse(stdout) as { pid: number; workers: { pid: number }[] }
    for (const gone of [pid, ...workers.map((worker) => worker.pid)]) await untilGone(gone)
    expect(isRunning(pid)).toBe(false)
    expectNothingLeft(directory, 'forgotten')
    expect(readdirSync(join(runtimeDir, 'agents'))).toEqual([])
    rmSync(runtimeDir, { recursive: true })
  })
})

it('prewarmed hosts serve new processes', async () => {
  const { cluster } = await clusterForTest({ prewarm: 2 })
  for (const id of ['one', 'two', 'three']) {
    const process = await cluster.process(id)
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
  }
})

it('a process drains before it ends', async () => {
  const { cluster } = await clusterForTest()
  const process = await cluster.process('drained')
  const other = await cluster.process('drained')
  const running = other.functions<FixtureApp>().sleep(300)
  await expect.poll(() => other.state.get('sleeping')).toBeDefined()
  await process.stop()
  expect(await running).toBe('slept')
  expect((await cluster.processes()).length).toBe(0)
})
