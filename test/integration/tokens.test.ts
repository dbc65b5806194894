/** Tokens of processes, end to end: what their holders can do, what they cannot, and when that ends. */
import { execFile } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import type { Lease } from '../../src/client/lease.js'
import type { Process } from '../../src/client/process.js'
import { codeOf, messageOf } from '../../src/errors.js'
import type { NativeConnectOptions } from '../../src/native/binding.js'
import { native } from '../../src/native/binding.js'
import { fromNative } from '../../src/native/errors.js'
import { compiledModule } from '../../src/package.js'
import { mintToken, tokenVerbs, type TokenVerb } from '../../src/token.js'
import { failureOf, startCluster, untilGone, type TestCluster } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

let started: TestCluster
let owned: Process

beforeAll(async () => {
  started = await startCluster({ listen: '127.0.0.1:0', workers: 2 })
  owned = await started.cluster.process('grid')
  await owned.state.set('key', new Uint8Array(100).fill(7))
  await owned.state.set('shown', new Uint8Array(100).fill(8))
  await owned.state.publish('shown')
})
afterAll(() => started.close())

type Transport = 'shm' | 'tcp' | 'auto'

async function listOf<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const list: Item[] = []
  for await (const item of items) list.push(item)
  return list
}

/** Somebody who has the URL and a token, and nothing else of the cluster. */
async function holderOf(token: string, transport: Transport = 'auto'): Promise<Process> {
  const runtimeDir = temporaryFolder()
  const cluster = await connect(started.cluster.listenUrl, { token, transport, runtimeDir })
  onTestFinished(() => cluster.close())
  return cluster.process('grid')
}

async function holder(verbs: readonly TokenVerb[], transport: Transport = 'auto'): Promise<Process> {
  return holderOf(await owned.token({ verbs }), transport)
}

/** How each request of a client ends, by what it needs. */
const requests: Record<TokenVerb, readonly ((process: Process) => Promise<unknown>)[]> = {
  invoke: [
    (process) => process.invoke('add', { a: 1, b: 2 }),
    (process) => process.invoke('echo', new Uint8Array(1 << 20)),
    (process) => process.signature('add'),
    async (process) => process.invokeSync('echo', new Uint8Array(8)),
    (process) => listOf(process.invokeStream('relay', [new Uint8Array(100_000)])),
    (process) => listOf(process.invokeMany('echo', [new Uint8Array(8), new Uint8Array(8)])),
  ],
  'state-read': [
    ({ state }) => state.get('key'),
    ({ state }) => state.read('key'),
    ({ state }) => state.read('shown'),
    ({ state }) => state.stat('key'),
    ({ state }) => listOf(state.keys()),
    async ({ state }) => (await state.lock('shared', 'read')).release(),
  ],
  'state-write': [
    ({ state }) => state.set('written', new Uint8Array(1 << 20)),
    ({ state }) => state.append('appended', new Uint8Array(8)),
    ({ state }) => state.publish('written'),
    ({ state }) => state.unpublish('written'),
    ({ state }) => state.delete('written'),
    async ({ state }) => (await state.lock('exclusive', 'write')).release(),
  ],
  lease: [],
  admin: [(process) => process.statistics(), (process) => process.leases()],
}

async function outcomesOf(process: Process, verb: TokenVerb): Promise<unknown[]> {
  const outcomes: unknown[] = []
  for (const request of requests[verb]) {
    outcomes.push(
      await request(process).then(
        () => 'done',
        (error: unknown) => codeOf(error) ?? messageOf(error),
      ),
    )
  }
  return outcomes
}

describe.each(['shm', 'tcp'] as const)('over %s', (transport) => {
  it.each(tokenVerbs.filter((verb) => verb !== 'lease'))('%s allows what it says and nothing else', async (verb) => {
    // Without calls there is no need for more than TCP.
    const process = await holder([verb], verb === 'invoke' ? transport : 'auto')
    if (verb === 'invoke') expect(process.transport).toBe(transport)
    else
      expect(process.connection).toMatchObject({ transport: 'tcp', reason: expect.stringContaining('NOT_PERMITTED') })
    for (const other of tokenVerbs) {
      const expected = verb === other ? 'done' : 'ERR_NOT_PERMITTED'
      expect(await outcomesOf(process, other), `${verb} asks for ${other}`).toEqual(requests[other].map(() => expected))
    }
  })

  it('lease needs invoke, and gives calls of leased workers', async () => {
    for (const verbs of [['lease'], ['invoke'], ['invoke', 'state-read', 'state-write', 'admin']] as const) {
      const process = await holder(verbs)
      expect(await failureOf(process.lease({ ttlMs: '60 s' }))).toMatchObject({ code: 'ERR_NOT_PERMITTED' })
    }
    const process = await holder(['invoke', 'lease'], transport)
    await using lease = await process.lease({ ttlMs: '60 s' })
    expect(lease.workers[0]?.transport).toBe(transport)
    expect(await lease.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(await failureOf(process.state.get('key'))).toMatchObject({ code: 'ERR_NOT_PERMITTED' })
  })

  it('a connection ends when its token expires, and no other begins', async () => {
    const begin = async (ttlMs: number): Promise<Process> => {
      const process = await holderOf(await owned.token({ verbs: tokenVerbs, ttlMs }), transport)
      await process.state.lock('expiring')
      return process
    }
    const process = await inTime(begin, async (opened) => opened.close())
    const waiting = owned.state.lock('expiring')
    const failure = await failureOf(process.invoke('sleep', 600_000, { timeoutMs: 600_000 }))
    expect(failure).toMatchObject({ code: 'ERR_TOKEN_EXPIRED', name: 'ConnectionError' })
    expect(await failureOf(process.invoke('add', { a: 1, b: 2 }))).toMatchObject({ code: 'ERR_TOKEN_EXPIRED' })
    await (await waiting).release()
  })

  it('a lease ends when the token of its holder expires', async () => {
    const begin = async (ttlMs: number): Promise<Lease> => {
      const process = await holderOf(await owned.token({ verbs: tokenVerbs, ttlMs }), transport)
      const lease = await process.lease({ ttlMs: '1 h' })
      onTestFinished(async () => void (await lease.close().catch(() => undefined)))
      await lease.invoke('echo', new Uint8Array(8))
      return lease
    }
    const lease = await inTime(begin, (taken) => taken.close())
    const failure = await failureOf(lease.invoke('sleep', 600_000, { timeoutMs: 600_000 }))
    expect(failure).toMatchObject({ code: 'ERR_TOKEN_EXPIRED', name: 'ConnectionError' })
    expect(await failureOf(lease.invoke('echo', new Uint8Array(8)))).toMatchObject({ code: 'ERR_TOKEN_EXPIRED' })
    await expect.poll(async () => (await owned.leases()).leases, { timeout: 30_000 }).toEqual([])
  })
})

/** What was begun with a token that has not expired when it is there: a token lasts several times as long as that takes here. */
async function inTime<Begun>(
  begin: (ttlMs: number) => Promise<Begun>,
  end: (begun: Begun) => Promise<unknown>,
): Promise<Begun> {
  const beganMs = performance.now()
  const trial = await begin(3_600_000)
  const tookMs = performance.now() - beganMs
  await end(trial)
  for (let ttlMs = 500 + 3 * tookMs; ; ttlMs *= 2) {
    try {
      return await begin(ttlMs)
    } catch (error) {
      if (codeOf(error) !== 'ERR_TOKEN_EXPIRED') throw error
    }
  }
}

it('the refusal says what is missing', async () => {
  const process = await holder(['invoke', 'state-read'])
  expect(await failureOf(process.state.set('key', new Uint8Array(1)))).toMatchObject({
    name: 'ConnectionError',
    message: expect.stringContaining(
      'does not allow state-write, which the request needs; it allows invoke, state-read',
    ) as string,
  })
})

describe('of the cluster', () => {
  it('a holder sees its process and nothing else', async () => {
    const other = await started.cluster.process('other')
    const token = await owned.token()
    await using cluster = await connect(started.cluster.listenUrl, { token })
    expect((await cluster.processes()).map(({ id }) => id)).toEqual(['grid'])
    const process = await cluster.process('grid', { create: false })
    expect(await process.describe()).toMatchObject({ id: 'grid', state: 'ready' })
    const refused = { code: 'ERR_NOT_PERMITTED', name: 'ConnectionError' }
    expect(await failureOf(cluster.process('other'))).toMatchObject(refused)
    expect(await failureOf(cluster.process('new', { app: 'other' }))).toMatchObject(refused)
    expect(await failureOf(cluster.stop('other'))).toMatchObject(refused)
    expect(await failureOf(cluster.stop('grid'))).toMatchObject(refused)
    expect(await failureOf(process.token())).toMatchObject(refused)
    expect(await failureOf(cluster.deploy('app.ts'))).toMatchObject(refused)
    expect(await failureOf(listOf(cluster.logs('grid')))).toMatchObject(refused)
    other.close()
  })

  it('admin allows logs and the end of the process', async () => {
    const mine = await started.cluster.process('mine')
    await mine.invoke('speaks', Buffer.from('something'))
    const token = await mine.token({ verbs: ['admin'] })
    await using cluster = await connect(started.cluster.listenUrl, { token })
    expect((await listOf(cluster.logs('mine'))).join('')).toContain('said something')
    await cluster.stop('mine')
    expect((await started.cluster.processes()).map(({ id }) => id)).not.toContain('mine')
  })

  it('works on the same machine through the runtime directory', async () => {
    const token = await owned.token()
    await using cluster = await connect(undefined, { token, runtimeDir: started.directory.path })
    const process = await cluster.process('grid')
    expect(process.transport).toBe('shm')
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(await failureOf(process.state.get('key'))).toMatchObject({ code: 'ERR_NOT_PERMITTED' })
  })
})

describe('is refused', () => {
  const refused = { code: 'ERR_TOKEN_INVALID', name: 'ConnectionError' }

  it('when it was forged, for another process, or has expired', async () => {
    const token = await owned.token()
    const bytes = Buffer.from(token, 'base64url')
    bytes[1] = 31 // all verbs
    const key = started.directory.processKey('grid')
    const wrong = [bytes.toString('base64url'), mintToken(Buffer.alloc(32).toString('base64url'), all('grid')), 'x']
    wrong.push(mintToken(key, all('other')), mintToken(key, all('none')))
    for (const text of wrong) {
      expect(await failureOf(connect(started.cluster.listenUrl, { token: text }))).toMatchObject(refused)
      expect(await failureOf(directly({ token: text }))).toMatchObject(refused)
    }
    const old = mintToken(key, { ...all('grid'), expiresMs: Date.now() })
    const expired = { code: 'ERR_TOKEN_EXPIRED', name: 'ConnectionError' }
    expect(await failureOf(connect(started.cluster.listenUrl, { token: old }))).toMatchObject(expired)
    expect(await failureOf(directly({ token: old }))).toMatchObject(expired)
    await directly({ token })
  })

  it('without a word about the key, when that is damaged', async () => {
    const spoilt = await started.cluster.process('spoilt')
    const token = await spoilt.token()
    const { tokenKey } = started.directory.processPaths('spoilt')
    chmodSync(tokenKey, 0o644)
    const failure = await failureOf(connect(started.cluster.listenUrl, { token }))
    expect(failure).toMatchObject(refused)
    expect(failure.message).not.toContain(tokenKey)
    chmodSync(tokenKey, 0o600)
    await spoilt.stop()
  })

  it('with options that make no sense', async () => {
    for (const options of [{ verbs: [] }, { verbs: ['all'] }, { ttlMs: 0 }, { ttlMs: '2 years' }, { ttlMs: '366 d' }]) {
      expect(await failureOf(owned.token(options as object))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    }
  })

  it('after its process was removed, but not after its host was killed', async () => {
    const mortal = await started.cluster.process('mortal')
    const token = await mortal.token()
    const asHolder = async (): Promise<unknown> => {
      await using cluster = await connect(started.cluster.listenUrl, { token })
      const process = await cluster.process('mortal')
      return await process.invoke('add', { a: 1, b: 2 })
    }
    expect(await asHolder()).toBe(3)
    const { pid = 0 } = await mortal.describe()
    process.kill(pid, 'SIGKILL')
    await untilGone(pid)
    expect(await asHolder()).toBe(3)
    await mortal.stop({ keep: true })
    const kept = await started.cluster.process('mortal')
    expect(await asHolder()).toBe(3)
    await kept.stop()
    expect(await failureOf(asHolder())).toMatchObject(refused)
    await started.cluster.process('mortal')
    expect(await failureOf(asHolder())).toMatchObject(refused)
  })

  const all = (id: string) =>
    ({ process: id, verbs: tokenVerbs, expiresMs: Date.now() + 60_000, endsConnections: true }) as const

  /** Without the control plane. */
  async function directly(options: Partial<NativeConnectOptions>): Promise<void> {
    const { host, port } = await owned.describe()
    const made = { host, port, process: 'grid', transport: 'tcp', timeoutMs: 20_000, windowBytes: 2 ** 24 } as const
    try {
      const connection = await native().connect({ ...made, checksum: false, spinUs: 0, token: '', ...options })
      connection.close()
    } catch (error) {
      throw fromNative(error)
    }
  }
})

describe('on the command line', () => {
  const main = compiledModule('cli/main.js')
  const praas = (environment: NodeJS.ProcessEnv, ...args: string[]): Promise<{ status: number; output: string }> =>
    new Promise((resolve) => {
      execFile(
        process.execPath,
        [main, ...args],
        { env: { ...process.env, ...environment } },
        (error, stdout, stderr) => resolve({ status: error ? Number(error.code) : 0, output: stdout + stderr }),
      )
    })

  it('praas token makes one for PRAAS_TOKEN', async () => {
    const mine = { PRAAS_RUNTIME_DIR: started.directory.path }
    const made = await praas(mine, 'token', 'grid', '--verbs', 'invoke,state-read', '--ttl', '1h')
    expect(made).toMatchObject({ status: 0, output: expect.stringMatching(/^[\w-]+\n$/) as string })
    const theirs = { PRAAS_RUNTIME_DIR: temporaryFolder(), PRAAS_URL: started.cluster.listenUrl }
    const holding = { ...theirs, PRAAS_TOKEN: made.output.trim() }
    expect(await praas(holding, 'invoke', 'add', '{"a":1,"b":2}')).toEqual({ status: 0, output: '3\n' })
    expect((await praas(holding, 'state', 'get', 'key')).status).toBe(0)
    expect(await praas(holding, 'state', 'set', 'key', 'value')).toMatchObject({
      status: 5,
      output: expect.stringContaining('ERR_NOT_PERMITTED') as string,
    })
    expect((await praas(holding, 'rm', 'grid')).status).toBe(5)
    expect((await praas(holding, 'token', 'grid')).status).toBe(5)
    expect((await praas({ ...holding, PRAAS_TOKEN: `${holding.PRAAS_TOKEN}x` }, 'ps')).status).toBe(5)
    expect((await praas(mine, 'token', 'grid', '--verbs', 'everything')).status).toBe(2)
    expect((await praas(mine, 'token', 'nobody')).status).toBe(3)
  })
})
