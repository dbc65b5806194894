/** One-sided reads of published state: the same over shared memory and TCP, whoever dies. */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import type { RemoteFunctions } from '../../src/client/stub.js'
import type * as fixture from '../fixtures/published_app.js'
import { clusterForTest, failureOf, isRunning, startCluster, untilGone, type TestCluster } from '../support/cluster.js'

const app = fileURLToPath(new URL('../fixtures/published_app.ts', import.meta.url))
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (entry: { readonly data: Uint8Array } | undefined): string | undefined =>
  entry && Buffer.from(entry.data).toString()

async function pidsOf(process: Process): Promise<{ readonly host: number; readonly workers: readonly number[] }> {
  const { pid, workers } = await process.describe()
  if (pid === undefined) throw new Error('it does not run')
  return { host: pid, workers: workers.map((worker) => worker.pid) }
}

function signalAll(pids: readonly number[], signal: NodeJS.Signals): void {
  for (const pid of pids) globalThis.process.kill(pid, signal)
}

/** All its bytes are alike. */
function isWhole({ data }: { readonly data: Uint8Array }): boolean {
  return data.every((byte) => byte === data[0])
}

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ app, workers: 2, memory: '64 MiB', publications: '1 MiB' })
})
afterAll(() => started.close())

async function processOver(transport: 'shm' | 'tcp', { cluster, directory }: TestCluster): Promise<Process> {
  const client = await connect(cluster.url, { transport, runtimeDir: directory.path })
  const process = await client.process(`over-${transport}`)
  expect(process.connection?.transport).toBe(transport)
  return process
}

describe.each(['shm', 'tcp'] as const)('over %s', (transport) => {
  let process: Process
  const typed = (): RemoteFunctions<typeof fixture> => process.functions<typeof fixture>()
  beforeAll(async () => {
    process = await processOver(transport, started)
  })

  it('reads every change when it is done, whoever made it', async () => {
    const { publish, set, append, remove, unpublish } = typed()
    const { state } = process
    expect(await publish({ key: 'key' })).toBe(4096 - 64)
    expect(await state.read('key')).toBeUndefined()
    const versions: bigint[] = []
    const read = async (): Promise<string | undefined> => {
      const entry = await state.read('key')
      if (entry) versions.push(entry.version)
      return text(entry)
    }
    for (let round = 0; round < 20; round++) {
      const version = BigInt(await set({ key: 'key', value: `set ${round}` }))
      expect(await read()).toBe(`set ${round}`)
      expect(versions.at(-1)).toBe(version)
      await append({ key: 'key', value: ' and more' })
      expect(await read()).toBe(`set ${round} and more`)
      await state.set('key', bytes('S'), { offset: 0 })
      expect(await read()).toBe(`Set ${round} and more`)
      await state.append('key', bytes('!'))
      expect(await read()).toBe(`Set ${round} and more!`)
      if (round % 2 === 0) await remove({ key: 'key' })
      else await state.delete('key')
      expect(await read()).toBeUndefined()
    }
    expect(versions).toEqual(versions.toSorted((a, b) => Number(a - b)))
    await state.set('key', bytes('at the end'))
    expect(await unpublish({ key: 'key' })).toBe(true)
    expect(await unpublish({ key: 'key' })).toBe(false)
    expect(await read()).toBe('at the end')
    await state.set('key', bytes('no more'))
    expect(await read()).toBe('no more')
  })

  it('is asked of clients as well', async () => {
    const { state } = process
    expect(await state.publish('by-client', { capacity: 10_000 })).toBe(3 * 4096 - 64)
    expect(await state.publish('by-client')).toBe(3 * 4096 - 64)
    await state.set('by-client', bytes('value'))
    expect(text(await state.read('by-client'))).toBe('value')
    expect(await state.unpublish('by-client')).toBe(true)
    expect(await state.unpublish('by-client')).toBe(false)
    expect(text(await state.read('by-client'))).toBe('value')
  })

  it('reads what is not published, too, and parts', async () => {
    const { state } = process
    expect(await state.read('never')).toBeUndefined()
    const version = await state.set('plain', bytes('0123456789'))
    expect(await state.read('plain')).toEqual({ data: bytes('0123456789'), version })
    expect(Buffer.from(await state.read('plain', 2, 3)).toString()).toBe('234')
  })

  it('asks for values larger than their publication', async () => {
    const { state } = process
    await state.publish('growing', { capacity: 1_000 })
    for (const size of [10, 4_032, 4_033, 100_000, 0, 5]) {
      await state.set('growing', new Uint8Array(size).fill(size % 251))
      for (let again = 0; again < 3; again++) {
        const entry = await state.read('growing')
        expect(entry?.data.byteLength).toBe(size)
        expect(entry && isWhole(entry)).toBe(true)
      }
    }
  })

  it('never reads a torn value, nor an older one than before', async () => {
    const { state } = process
    const { hammer } = typed()
    await state.publish('hammered', { capacity: 70_000 })
    const sizes = [100, 4_000, 60_000, 8, 0, 30_000, 100_000]
    const writes = [0, 0]
    let [over, reads, last] = [false, 0, 0n]
    const hammered = Promise.all(
      writes.map(async (_, each) => {
        while (Math.min(reads, ...writes) <= 100) {
          writes[each] = (writes[each] ?? 0) + (await hammer({ key: 'hammered', sizes, forMs: 1_500 }))
        }
      }),
    )
    hammered.finally(() => (over = true)).catch(() => undefined)
    while (!over) {
      const entry = await state.read('hammered')
      if (!entry) continue
      reads++
      if (!isWhole(entry)) expect.fail(`torn: ${Buffer.from(entry.data).toString('hex', 0, 40)}`)
      if (entry.version < last) expect.fail(`version ${entry.version} after ${last}`)
      last = entry.version
    }
    await hammered
    const end = await state.read('hammered')
    expect(end).toEqual({ data: await state.get('hammered'), version: (await state.stat('hammered'))?.version })
  })

  it('goes on when a worker is killed in the middle of it', async () => {
    const { state } = process
    const { hammer } = typed()
    await state.publish('survivor', { capacity: 200_000 })
    for (let round = 0; round < 3; round++) {
      const ready = async (): Promise<readonly number[]> =>
        (await process.describe()).workers.filter(({ state: is }) => is === 'ready').map(({ pid }) => pid)
      await expect.poll(async () => (await ready()).length, { timeout: 30_000 }).toBe(2)
      const workers = await ready()
      await state.delete('survivor/begun')
      const before = (await state.read('survivor'))?.version
      const hammers = [1, 2].map(() => failureOf(hammer({ key: 'survivor', sizes: [150_000, 10], forMs: 60_000 })))
      // One that waited still would go on in the next workers.
      await expect.poll(async () => (await state.stat('survivor/begun'))?.byteLength).toBe(2)
      await expect.poll(async () => (await state.read('survivor'))?.version).not.toBe(before)
      for (let reads = 0; reads < 50; reads++) await state.read('survivor')
      signalAll(workers, 'SIGKILL')
      for (const { code } of await Promise.all(hammers)) expect(code).toBe('ERR_WORKER_CRASHED')
      for (const pid of workers) await untilGone(pid)
      const entry = await state.read('survivor')
      expect(entry && isWhole(entry)).toBe(true)
      await state.set('survivor', bytes(`after ${round}`))
      expect(text(await state.read('survivor'))).toBe(`after ${round}`)
    }
  })

  it('is still published by the next host', async () => {
    const { state } = process
    await state.publish('kept', { capacity: 50_000 })
    await state.set('kept', new Uint8Array(40_000).fill(7))
    await state.publish('kept-absent')
    const { host } = await pidsOf(process)
    globalThis.process.kill(host, 'SIGKILL')
    await untilGone(host)
    await expect.poll(async () => (await state.read('kept'))?.data.byteLength, { timeout: 30_000 }).toBe(40_000)
    await expect.poll(async () => process.connection?.hostPid).not.toBe(host)
    await state.set('kept', bytes('by the next'))
    expect(text(await state.read('kept'))).toBe('by the next')
    await typed().set({ key: 'kept-absent', value: 'there' })
    expect(text(await state.read('kept-absent'))).toBe('there')
    expect(await state.unpublish('kept-absent')).toBe(true)
    expect(await state.unpublish('kept')).toBe(true)
  })

  it('refuses arrays', async () => {
    const { state } = process
    const { makeArray, publish } = typed()
    await makeArray({ key: 'array' })
    expect(await failureOf(state.publish('array'))).toMatchObject({ code: 'ERR_STATE_TYPE' })
    expect((await failureOf(publish({ key: 'array' }))).message).toContain('holds an array')
    expect(await failureOf(state.read('array'))).toMatchObject({ code: 'ERR_STATE_TYPE' })
    await state.publish('later-array')
    await makeArray({ key: 'later-array' })
    expect(await failureOf(state.read('later-array'))).toMatchObject({ code: 'ERR_STATE_TYPE' })
  })

  it('is limited', async () => {
    const { state } = process
    const { publish } = typed()
    expect(await failureOf(state.publish('large', { capacity: 2 ** 20 }))).toMatchObject({
      code: 'ERR_STATE_MEMORY',
      message: expect.stringContaining('option publications') as string,
    })
    expect((await failureOf(publish({ key: 'large', capacity: 2 ** 50 }))).message).toContain('option publications')
    expect(await state.unpublish('large')).toBe(false)
  })

  it('says what is wrong with arguments', async () => {
    const { state } = process
    const invalid = { code: 'ERR_ARGUMENT_INVALID' }
    expect(await failureOf(state.read(''))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(await failureOf(state.read('k'.repeat(256)))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(await failureOf(state.read('k', { tiemout: 1 } as never))).toMatchObject(invalid)
    expect(await failureOf(state.read('k', 0 as never))).toMatchObject(invalid)
    expect(await failureOf(state.read('k', -1, 1))).toMatchObject(invalid)
    expect(await failureOf(state.publish('k', { capacity: -1 }))).toMatchObject(invalid)
    expect(await failureOf(state.publish('k', { capacity: 1.5 }))).toMatchObject(invalid)
    expect(await failureOf(state.publish('\u0001mailbox/x'))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    const aborted = AbortSignal.abort(new Error('no more'))
    expect(await failureOf(state.read('k', { signal: aborted }))).toMatchObject({ message: 'no more' })
  })
})

describe('in shared memory', () => {
  it('needs nobody: host and workers may be stopped', async () => {
    const { cluster } = await clusterForTest({ app, workers: 1 })
    const process = await cluster.process('stopped')
    const version = await process.state.set('key', bytes('value'))
    await process.state.publish('key')
    await process.state.read('key')
    const { host, workers } = await pidsOf(process)
    signalAll([host, ...workers], 'SIGSTOP')
    try {
      for (let reads = 0; reads < 1_000; reads++) {
        expect(await process.state.read('key')).toEqual({ data: bytes('value'), version })
      }
    } finally {
      signalAll([host, ...workers], 'SIGCONT')
    }
    expect(isRunning(host)).toBe(true)
    process.close()
    expect(await failureOf(process.state.read('key'))).toMatchObject({ code: 'ERR_PROCESS_CLOSED' })
  })

  it('leaves its turn to timers', async () => {
    const { cluster } = await clusterForTest({ app, workers: 1 })
    const { state } = await cluster.process('turns')
    await state.set('key', bytes('value'))
    await state.publish('key')
    let over = false
    setTimeout(() => (over = true), 20)
    while (!over) await state.read('key')
  })

  it('can be read by clients and written by nobody but the process', async () => {
    const { cluster } = await clusterForTest({ app, workers: 1 })
    const process = await cluster.process('protected')
    await process.invoke('publish', { key: 'key' })
    const { workers } = await pidsOf(process)
    const modes = (pid: number | string): Set<string> =>
      new Set(
        readFileSync(`/proc/${pid}/maps`, 'utf8')
          .split('\n')
          .filter((line) => line.includes('memfd:praas-publication'))
          .map((line) => line.split(' ')[1] ?? ''),
      )
    expect(modes('self')).toEqual(new Set(['r--s']))
    expect(modes(workers[0] ?? 0)).toEqual(new Set(['rw-s']))
  })
})
