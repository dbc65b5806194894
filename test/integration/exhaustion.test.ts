/** What runs out: errors say so, what is there goes on, and all is well when there is enough again. */
import { execFileSync, spawnSync } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import type { Cluster } from '../../src/client/cluster.js'
import { Confined, descriptors, obstacle, setLimits } from '../support/confined.js'
import { clusterForTest, failureOf, fixtureApp } from '../support/cluster.js'
import { sanitized } from '../support/sanitized.js'
import { temporaryFolder } from '../support/temporary.js'

const why = obstacle()
if (why !== undefined) console.log(`what is exhausted is not tested: ${why}`)
const mebibyte = 1 << 20
/** Clusters in OS processes of their own start slowly where much else runs. */
const limit = { timeout: 180_000 }

it.skipIf(why !== undefined)('a full /dev/shm', limit, async () => {
  const confined = await Confined.start({ shm: '64m' })
  const cluster = await confined.client()
  const served = await cluster.process('main', { create: false })
  await served.state.set('kept', new Uint8Array(mebibyte).fill(5))
  const free = confined.fill(confined.seen('/dev/shm'))

  expect(await failureOf(served.state.set('more', new Uint8Array(16 * mebibyte)))).toMatchObject({
    code: 'ERR_STATE_MEMORY',
    message: expect.stringContaining('/dev/shm'),
  })
  expect((await served.state.get('kept'))?.every((byte) => byte === 5)).toBe(true)
  expect(await served.invoke('echo', new Uint8Array(4 * mebibyte))).toHaveLength(4 * mebibyte)
  const refused = await failureOf(cluster.process('second', { app: fixtureApp, memory: '8 MiB' }))
  expect(refused.message).toMatch(/\/dev\/shm|No space left/)

  free()
  await served.state.set('more', new Uint8Array(16 * mebibyte))
  const second = await cluster.process('second', { app: fixtureApp, memory: '8 MiB' })
  expect(await second.invoke('add', { a: 1, b: 2 })).toBe(3)
})

it('a full segment', async () => {
  const { cluster } = await clusterForTest({ memory: '16 MiB' })
  const served = await cluster.process('small')
  const values = ['a', 'b', 'c'].map((key) => [key, new Uint8Array(4 * mebibyte).fill(key.charCodeAt(0))] as const)
  for (const [key, value] of values) await served.state.set(key, value)
  expect(await failureOf(served.state.set('d', new Uint8Array(8 * mebibyte)))).toMatchObject({
    code: 'ERR_STATE_MEMORY',
    message: expect.stringContaining('limit'),
  })
  for (const [key, value] of values) expect(Buffer.from((await served.state.get(key)) ?? []).equals(value)).toBe(true)
  await served.state.delete('a')
  await served.state.delete('b')
  await served.state.set('d', new Uint8Array(8 * mebibyte))
  expect(await served.invoke('echo', new Uint8Array(mebibyte))).toHaveLength(mebibyte)
})

// UndefinedBehaviorSanitizer opens pipes to see what memory there is.
const withoutDescriptors = why ?? sanitized
if (withoutDescriptors !== undefined) console.log(`a lack of descriptors is not tested: ${withoutDescriptors}`)

it.skipIf(withoutDescriptors !== undefined)('descriptors of a process host', limit, async () => {
  const confined = await Confined.start()
  const cluster = await confined.client('tcp')
  const served = await cluster.process('main', { create: false })
  expect(await served.invoke('add', { a: 1, b: 2 })).toBe(3)
  const { pid = 0 } = await served.describe()
  const enough = 1000
  setLimits(pid, `--nofile=${descriptors(pid) + 2}:${enough}`)

  const connected: Cluster[] = []
  const call = async (transport: 'tcp' | 'shm'): Promise<void> => {
    const client = await confined.client(transport)
    connected.push(client)
    const process = await client.process('main', { create: false, timeoutMs: 2_000 })
    expect(await process.invoke('add', { a: 1, b: 2 }, { timeoutMs: 5_000 })).toBe(3)
  }
  let refused: (Error & { code: string }) | undefined
  for (let i = 0; i < 10 && refused === undefined; i += 1) {
    await call('tcp').catch((error: unknown) => (refused = error as Error & { code: string }))
  }
  const noneLeft = { code: 'ERR_CONNECTION_REFUSED', message: expect.stringContaining('no file descriptors left') }
  expect(refused).toMatchObject(noneLeft)
  expect(await failureOf(call('shm'))).toMatchObject(noneLeft)
  // Who is connected does not notice.
  expect(await served.invoke('echo', new Uint8Array(mebibyte))).toHaveLength(mebibyte)
  await served.state.set('kept', new Uint8Array(100_000))

  setLimits(pid, `--nofile=${enough}:${enough}`)
  await expect.poll(() => call('tcp').then(() => 'served', String), { timeout: 30_000 }).toBe('served')
  await expect.poll(() => call('shm').then(() => 'served', String), { timeout: 30_000 }).toBe('served')
  await Promise.all(connected.map((client) => client.close()))
})

it.skipIf(withoutDescriptors !== undefined)('descriptors of an agent whose process host dies', limit, async () => {
  const confined = await Confined.start()
  const cluster = await confined.client('tcp')
  const served = await cluster.process('main', { create: false })
  await served.state.set('kept', new Uint8Array(1000))
  const { pid = 0 } = await served.describe()
  const enough = 1000
  setLimits(confined.pid, `--nofile=${descriptors(confined.pid)}:${enough}`)
  // One after another, until no host is left that has been started before.
  let host: number | undefined = pid
  while (host !== undefined) {
    process.kill(host, 'SIGKILL')
    const killed = host
    await expect.poll(async () => (await confined.describe(cluster)).pid, { timeout: 60_000 }).not.toBe(killed)
    host = (await confined.describe(cluster)).pid
    if (host === undefined) break
  }
  await expect
    .poll(() => confined.describe(cluster), { timeout: 60_000 })
    .toMatchObject({ state: 'failed', reason: expect.stringContaining('EMFILE') })
  expect(await failureOf(served.invoke('add', { a: 1, b: 2 }))).toMatchObject({
    code: 'ERR_PROCESS_FAILED',
    message: expect.stringContaining('EMFILE'),
  })
  setLimits(confined.pid, `--nofile=${enough}:${enough}`)
  await expect.poll(() => served.invoke('add', { a: 1, b: 2 }).catch(String), { timeout: 60_000 }).toBe(3)
  expect(await served.state.get('kept')).toHaveLength(1000)
})

it.skipIf(withoutDescriptors !== undefined)('descriptors of an agent that others connect to', limit, async () => {
  const confined = await Confined.start()
  const connected = await confined.client('tcp')
  const served = await connected.process('main', { create: false })
  const enough = 1000
  setLimits(confined.pid, `--nofile=${descriptors(confined.pid)}:${enough}`)
  const call = async (): Promise<unknown> => {
    const client = await confined.client('tcp')
    const process = await client.process('main', { create: false, timeoutMs: 5_000 })
    return process.invoke('add', { a: 1, b: 2 }, { timeoutMs: 5_000 }).finally(() => client.close())
  }
  expect(await failureOf(call())).toMatchObject({
    code: 'ERR_CLUSTER_UNREACHABLE',
    message: expect.stringContaining('no file descriptors left (`ulimit -n`)'),
  })
  // Calls do not need it.
  expect(await served.invoke('add', { a: 1, b: 2 })).toBe(3)
  setLimits(confined.pid, `--nofile=${enough}:${enough}`)
  await expect.poll(() => call().catch(String), { timeout: 30_000 }).toBe(3)
})

it.skipIf(why !== undefined)('the disk of the logs', limit, async () => {
  const confined = await Confined.start({ disk: '4m' })
  const cluster = await confined.client('tcp')
  const served = await cluster.process('main', { create: false })
  await served.invoke('speaks', Buffer.from('before'))
  const processes = join(confined.runtimeDir, 'processes')
  const log = join(processes, readdirSync(processes)[0] ?? '', 'log')
  const lines = (): string[] => readFileSync(log, 'utf8').split('\n')
  await expect.poll(lines).toContainEqual(expect.stringMatching(/\| said before$/))
  const free = confined.fill(confined.runtimeDir)
  for (let i = 0; i < 200; i += 1) await served.invoke('speaks', Buffer.from(`lost ${i} ${'x'.repeat(200)}`))
  expect(await served.invoke('add', { a: 1, b: 2 })).toBe(3)
  await served.state.set('kept', new Uint8Array(1000))
  free()
  await served.invoke('speaks', Buffer.from('after'))
  await expect.poll(lines).toContainEqual(expect.stringMatching(/\| said after$/))
  // Every line is whole, and the log says that some are not there.
  const shape = /^(\d{4}-\d\d-\d\dT[\d:.]+Z worker \d+ \w+ \| .*)?$/
  expect(lines().filter((line) => !shape.test(line))).toEqual([])
  expect(lines()).toContainEqual(expect.stringMatching(/\| \(\d+ lines before this one are lost: No space left/))
})

const program = fileURLToPath(new URL('../fixtures/scarce.mjs', import.meta.url))
const rightsOf = (user: number): string[] => [
  `--reuid=${user}`,
  `--regid=${user}`,
  '--clear-groups',
  '--bounding-set=-all',
  '--inh-caps=-all',
]

/** What a user saw of whom everything is counted, so that he may have nothing else running. */
function seenByUser(user: number, what: 'processes' | 'queues', ...limits: string[]): unknown {
  const dist = fileURLToPath(new URL('../../dist', import.meta.url))
  const folder = temporaryFolder()
  execFileSync('chown', [String(user), folder])
  const command = ['setpriv', ...rightsOf(user), process.execPath, program, what, dist, fixtureApp]
  const output = execFileSync('prlimit', [...limits, ...command], {
    env: { ...process.env, HOME: folder, PRAAS_RUNTIME_DIR: join(folder, 'run') },
  })
  return JSON.parse(output.toString())
}

/** Why another user cannot run the fixture, or undefined. */
function withoutUsers(): string | undefined {
  if (why !== undefined) return why
  const probe = spawnSync('setpriv', [...rightsOf(61_234), process.execPath, '--check', program])
  return probe.status === 0 ? undefined : `user 61234 cannot run ${program}: ${String(probe.stderr)}`
}
const alone = withoutUsers()
if (alone !== undefined) console.log(`what users may have is not tested: ${alone}`)

it.skipIf(alone !== undefined)('processes of the user', limit, () => {
  const seen = seenByUser(61_234, 'processes', '--nproc=10000:10000') as { without: string }
  expect(seen.without).toMatch(/^ERR_[A-Z_]+: .*Resource temporarily unavailable/s)
  expect(seen).toMatchObject({ after: 3, kept: 10 })
})

it.skipIf(alone !== undefined)('message queues: who has none is woken otherwise', limit, () => {
  const seen = seenByUser(61_235, 'queues', '--msgqueue=4096') as { id: string; sum: number; doorbell: string }[]
  expect(seen.map(({ sum }) => sum)).toEqual(seen.map(() => 3))
  expect(seen.slice(0, -2).map(({ doorbell }) => doorbell)).toEqual(seen.slice(0, -2).map(() => 'mqueue'))
  expect(seen.at(-2)?.doorbell).toMatch(/^futex.*RLIMIT_MSGQUEUE/)
  expect(seen.at(-1)?.doorbell, 'when one has ended').toBe('mqueue')
})
