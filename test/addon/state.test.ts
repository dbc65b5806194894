import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NativeConnection } from '../../src/native/binding.js'
import { bytes, fn, parsed, rejection, TestHost, text, thrown } from './support.js'

const long = 60_000

let host: TestHost
let client: NativeConnection
beforeAll(async () => {
  host = await TestHost.start({ workers: 2, concurrency: 8, hotMs: 2, graceMs: 30_000 })
  client = await host.connect()
})
afterAll(() => host.stop())

const call = (name: string, input: unknown): Promise<Uint8Array> =>
  client.invoke(fn(client, name), bytes(input), undefined, 0, long)
const inWorker = async (op: string, ...args: unknown[]): Promise<unknown> => parsed(await call('state', { op, args }))

describe('state of a process, from a client', () => {
  it('stores, reads and deletes values', async () => {
    const first = await client.stateSet('value', bytes('one'), { timeoutMs: long })
    const second = await client.stateSet('value', bytes('two'), { timeoutMs: long })
    expect(second).toBeGreaterThan(first)
    const { data, version } = await client.stateGet('value', long)
    expect([text(data), version]).toEqual(['two', second])
    expect(await client.stateStat('value', long)).toMatchObject({
      key: 'value',
      kind: 'value',
      bytes: 3,
      version: second,
    })
    expect((await client.stateStat('value', long)).modifiedMs).toBeGreaterThan(1.7e12)
    expect(await client.stateDelete('value', undefined, long)).toBe(true)
    expect(await client.stateDelete('value', undefined, long)).toBe(false)
    expect(await rejection(client.stateGet('value', long))).toMatchObject({ code: 'ERR_STATE_NOT_FOUND' })
  })

  it('compares and sets', async () => {
    const made = await client.stateSet('cas', bytes('a'), { timeoutMs: long, ifVersion: 0n })
    expect(await rejection(client.stateSet('cas', bytes('b'), { timeoutMs: long, ifVersion: 0n }))).toMatchObject({
      code: 'ERR_STATE_VERSION',
    })
    expect(await client.stateSet('cas', bytes('b'), { timeoutMs: long, ifVersion: made })).toBeGreaterThan(made)
    expect(await rejection(client.stateDelete('cas', made, long))).toMatchObject({ code: 'ERR_STATE_VERSION' })
  })

  it('appends, patches and reads parts', async () => {
    await client.stateSet('parts', bytes('hello'), { timeoutMs: long })
    await client.stateAppend('parts', bytes(' world'), long)
    await client.stateSet('parts', bytes('J'), { timeoutMs: long, offset: 0 })
    expect(text((await client.stateGet('parts', long)).data)).toBe('Jello world')
    expect(text(await client.stateRead('parts', 6, 100, long))).toBe('world')
    expect(text(await client.stateRead('parts', 0, 2, long))).toBe('Je')
    expect(await rejection(client.stateRead('parts', 12, 1, long))).toMatchObject({ code: 'ERR_STATE_RANGE' })
  })

  it('lists keys', async () => {
    for (const key of ['list/b', 'list/a', 'list/c']) await client.stateSet(key, bytes(key), { timeoutMs: long })
    const keys = await client.stateKeys('list/', '', 2, long)
    expect(keys.map(({ key }) => key)).toEqual(['list/a', 'list/b'])
    expect((await client.stateKeys('list/', 'list/b', 2, long)).map(({ key }) => key)).toEqual(['list/c'])
  })

  it('carries large values', async () => {
    const value = Uint8Array.from({ length: 3_000_000 }, (_, i) => i % 251)
    await client.stateSet('large', value, { timeoutMs: long })
    expect(Buffer.compare((await client.stateGet('large', long)).data, value)).toBe(0)
    await client.stateDelete('large', undefined, long)
  })

  it('peeks at published values, over shared memory only', async () => {
    const tcp = await host.connect('tcp')
    const version = await client.stateSet('shown', bytes('one'), { timeoutMs: long })
    expect(await client.statePublish('shown', undefined, long)).toBe(4032)
    expect(client.statePeek('shown')).toBeUndefined()
    expect(await client.stateFetch('shown', long)).toEqual({ data: bytes('one'), version })
    expect(await tcp.stateFetch('shown', long)).toEqual({ data: bytes('one'), version })
    expect(client.statePeek('shown')).toEqual({ data: bytes('one'), version })
    expect(tcp.statePeek('shown')).toBeUndefined()
    await client.stateSet('shown', bytes(''), { timeoutMs: long })
    expect(client.statePeek('shown')?.data.byteLength).toBe(0)
    await client.stateDelete('shown', undefined, long)
    expect(client.statePeek('shown')).toBeNull()
    expect(await client.stateFetch('shown', long)).toBeUndefined()
    expect(await client.stateUnpublish('shown', long)).toBe(true)
    expect(client.statePeek('shown')).toBeUndefined()
    tcp.close()
    expect(thrown(() => tcp.statePeek('shown'))).toMatchObject({ code: 'ERR_CONNECTION_CLOSED' })
  })

  it('checks arguments', () => {
    expect(thrown(() => client.statePeek(5 as never))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(thrown(() => void client.statePublish('k', -1, long))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(thrown(() => void client.statePublish('', undefined, long))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(thrown(() => void client.stateGet(5 as never, long))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(thrown(() => void client.stateGet('', long))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(thrown(() => void client.stateGet('k'.repeat(256), long))).toMatchObject({ code: 'ERR_NAME_INVALID' })
    expect(thrown(() => void client.stateSet('k', bytes(''), undefined as never))).toBeInstanceOf(TypeError)
    expect(
      thrown(() => void client.stateSet('k', bytes(''), { timeoutMs: long, ifVersion: 1 as never })),
    ).toBeInstanceOf(TypeError)
    expect(thrown(() => void client.stateKeys('', '', 0, long))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(thrown(() => void client.lock('l', 'own' as never, long))).toBeInstanceOf(RangeError)
  })
})

describe('state of a process, from its functions', () => {
  it('is the same state', async () => {
    await client.stateSet('shared', bytes('from the client'), { timeoutMs: long })
    expect(await inWorker('get', 'shared')).toMatchObject({ data: 'from the client' })
    await inWorker('set', 'shared', 'from a function')
    await inWorker('append', 'shared', '!')
    expect(text((await client.stateGet('shared', long)).data)).toBe('from a function!')
    expect(await inWorker('read', 'shared', 5, 100)).toBe('a function!')
    expect(await inWorker('stat', 'shared')).toMatchObject({ kind: 'value', bytes: 16 })
    expect(await inWorker('keys', 'shared')).toEqual(['shared'])
    expect(await inWorker('delete', 'shared')).toBe(true)
    expect(await inWorker('delete', 'shared')).toBe(false)
  })

  it('views a value in place', async () => {
    await client.stateSet('viewed', Uint8Array.of(9, 8, 7), { timeoutMs: long })
    expect(parsed(await call('view', 'viewed'))).toEqual({ length: 3, first: 9 })
    expect(parsed(await call('view', 'absent'))).toEqual({})
  })

  it('shares arrays between workers and calls', async () => {
    for (let i = 1; i <= 20; i += 1) expect(await inWorker('array', 'grid', 1000)).toEqual({ first: i, same: true })
    expect(await client.stateStat('grid', long)).toMatchObject({ kind: 'array', elementType: 9, bytes: 8000 })
    expect((await rejection(inWorker('array', 'grid', 999))).message).toContain('ERR_STATE_RANGE')
  })
})

describe('locks', () => {
  it('exclude each other, from clients', async () => {
    const other = await host.connect()
    const held = await client.lock('exclusive', 'write', long).promise
    expect(typeof held).toBe('bigint')
    expect(await rejection(other.lock('exclusive', 'read', 50).promise)).toMatchObject({
      code: 'ERR_STATE_LOCK_TIMEOUT',
    })
    const waiting = other.lock('exclusive', 'write', long)
    await client.unlock(held, long)
    await other.unlock(await waiting.promise, long)
    expect(await rejection(client.unlock(held, long))).toMatchObject({ code: 'ERR_STATE_LOCK_LOST' })
  })

  it('are shared by readers', async () => {
    const locks = await Promise.all([1, 2, 3].map(() => client.lock('shared', 'read', long).promise))
    await Promise.all(locks.map((lock) => client.unlock(lock, long)))
  })

  it('can be given up while waiting', async () => {
    const held = await client.lock('given up', 'write', long).promise
    const other = await host.connect()
    const { id, promise } = other.lock('given up', 'write', long)
    other.cancel(id)
    expect(await rejection(promise)).toHaveProperty('code')
    await client.unlock(held, long)
  })

  it('are released with the connection', async () => {
    const other = await host.connect()
    await other.lock('left behind', 'write', long).promise
    other.close()
    await client.unlock(await client.lock('left behind', 'write', long).promise, long)
  })

  const ask = { name: 'mixed', mode: 'write', timeoutMs: 10_000 }
  it('exclude functions and clients', async () => {
    const held = await client.lock('mixed', 'write', long).promise
    const waiting = call('lock', ask)
    const late = await rejection(call('lock', { ...ask, timeoutMs: 30 }))
    expect(parsed(bytes(late.message))).toMatchObject({ code: 'ERR_STATE_LOCK_TIMEOUT' })
    await client.unlock(held, long)
    expect(text(await waiting)).toBe('released')
  })

  it('end with the invocation that holds them', async () => {
    const promise = client.invoke(fn(client, 'lock'), bytes({ ...ask, hold: true }), undefined, 0, long)
    const id = client.lastCall
    const waiting = client.lock('mixed', 'write', long)
    client.cancel(id)
    await promise.catch(() => undefined)
    await client.unlock(await waiting.promise, long)
  })

  it('of functions exclude each other', async () => {
    const results = await Promise.all(Array.from({ length: 10 }, () => call('lock', ask)))
    expect(results.map(text)).toEqual(Array(10).fill('released'))
  })
})
