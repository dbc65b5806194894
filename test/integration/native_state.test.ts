/** State and locks of praas.h, beside a client of the same state. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, libraries, say, textOf, untilReady } from '../support/native.js'

let started: TestCluster
let process: Process
beforeAll(async () => {
  started = await startCluster({ app: libraries.c, workers: 2, memory: '16 MiB' })
  process = await started.cluster.process('c')
})
afterAll(() => started.close())

const get = async (key: string): Promise<string | undefined> => {
  const value = await process.state.get(key)
  return value && textOf(value)
}

describe('values', () => {
  it('praas_state_set and praas_state_get', async () => {
    expect(await say(process, 'state_set', 'c/value one')).toBe('OK')
    expect(await get('c/value')).toBe('one')
    await process.state.set('c/value', bytesOf('two'))
    expect(await say(process, 'state_get', 'c/value')).toBe('two')
    expect(await say(process, 'state_set', 'c/value ')).toBe('OK')
    expect(await say(process, 'state_get', 'c/value')).toBe('')
    expect(await say(process, 'state_get', 'c/none')).toMatch(/^ERR_STATE_NOT_FOUND: .*c\/none/)
    expect(await say(process, 'state_set', `${'k'.repeat(255)} v`)).toBe('OK')
    expect(await say(process, 'state_set', `${'k'.repeat(256)} v`)).toMatch(/^ERR_NAME_INVALID/)
    expect(await say(process, 'state_set', ' v')).toMatch(/^ERR_NAME_INVALID/)
    expect(await say(process, 'state_get', '')).toMatch(/^ERR_NAME_INVALID/)
  })

  it('praas_state_get into a buffer that is too small gives what fits, and says the size', async () => {
    await process.state.set('c/long', bytesOf('0123456789'))
    expect(await say(process, 'state_get_short', 'c/long')).toBe('ERR_STATE_RANGE 10 0123')
    await process.state.set('c/long', bytesOf('0123'))
    expect(await say(process, 'state_get_short', 'c/long')).toBe('OK 4 0123')
  })

  it('praas_state_view does not change when the key does', async () => {
    await process.state.set('c/viewed', bytesOf('old'))
    expect(await say(process, 'state_view', 'c/viewed')).toBe('old old')
    expect(await get('c/viewed')).toBe('replaced')
    expect(await say(process, 'state_view', 'c/none')).toMatch(/^ERR_STATE_NOT_FOUND/)
  })

  it('praas_state_set_if', async () => {
    expect(await say(process, 'state_set_if', 'c/if value')).toBe('OK ERR_STATE_VERSION OK ERR_STATE_VERSION rising')
    expect(await get('c/if')).toBe('value')
  })

  it('praas_state_patch and praas_state_append', async () => {
    await process.state.set('c/patched', bytesOf('abcd'))
    expect(await say(process, 'state_patch', 'c/patched XY')).toBe('OK')
    expect(await get('c/patched')).toBe('aXYd')
    expect(await say(process, 'state_patch', 'c/patched 123456')).toBe('OK')
    expect(await get('c/patched')).toBe('a123456')
    expect(await say(process, 'state_append', 'c/patched !')).toBe('OK')
    expect(await get('c/patched')).toBe('a123456!')
    expect(await say(process, 'state_append', 'c/created new')).toBe('OK')
    expect(await get('c/created')).toBe('new')
  })

  it('praas_state_delete', async () => {
    await process.state.set('c/deleted', bytesOf('x'))
    expect(await say(process, 'state_delete', 'c/deleted')).toBe('OK')
    expect(await get('c/deleted')).toBeUndefined()
    expect(await say(process, 'state_delete', 'c/deleted')).toMatch(/^ERR_STATE_NOT_FOUND/)
  })

  it('praas_state_publish and praas_state_unpublish', async () => {
    expect(await say(process, 'state_publish', 'c/published 0')).toBe('4032')
    expect(await process.state.read('c/published')).toBeUndefined()
    expect(await say(process, 'state_set', 'c/published one')).toBe('OK')
    expect(textOf((await process.state.read('c/published'))?.data ?? new Uint8Array())).toBe('one')
    expect(await say(process, 'state_publish', 'c/published 5000')).toBe('8128')
    expect(await say(process, 'state_publish', `c/published ${2 ** 40}`)).toMatch(/^ERR_STATE_MEMORY/)
    expect(await say(process, 'state_unpublish', 'c/published')).toBe('OK')
    expect(await say(process, 'state_unpublish', 'c/published')).toMatch(/^ERR_STATE_NOT_FOUND/)
    expect(await say(process, 'state_publish', '')).toMatch(/^ERR_NAME_INVALID/)
  })

  it('praas_state_stat', async () => {
    const before = Date.now()
    const version = await process.state.set('c/stat', bytesOf('12345'))
    const info = JSON.parse(await say(process, 'state_stat', 'c/stat')) as Record<string, number>
    expect(info).toMatchObject({ key: 'c/stat', elementType: 0, bytes: 5, version: Number(version) })
    expect(info['modifiedMs']).toBeGreaterThanOrEqual(before - 1)
    await say(process, 'state_array', 'c/stat-array 3')
    expect(JSON.parse(await say(process, 'state_stat', 'c/stat-array'))).toMatchObject({ elementType: 9, bytes: 24 })
    expect(await say(process, 'state_stat', 'c/none')).toMatch(/^ERR_STATE_NOT_FOUND/)
  })

  it('praas_state_keys', async () => {
    for (const key of ['b', 'a', 'c', 'd']) await process.state.set(`c/keys/${key}`, bytesOf(key))
    expect(await say(process, 'state_keys', 'c/keys/')).toBe('c/keys/a c/keys/b c/keys/c c/keys/d')
    expect(await say(process, 'state_keys', 'c/keys/ 2')).toBe('c/keys/a c/keys/b')
    expect(await say(process, 'state_keys', 'c/nothing/')).toBe('')
  })

  it('that find no memory', async () => {
    await process.state.set('c/full', new Uint8Array(10 << 20))
    expect(await say(process, 'state_array', 'c/huge 4000000')).toMatch(/^ERR_STATE_MEMORY/)
    await process.state.delete('c/full')
  })
})

describe('arrays', () => {
  it('praas_state_array is one memory for all workers', async () => {
    expect(await say(process, 'state_array', 'c/array 4')).toBe('6')
    expect(await say(process, 'state_array', 'c/array 4')).toBe('12')
    expect(await process.state.stat('c/array')).toMatchObject({ kind: 'array', elementType: 'Float64Array' })
    expect(await say(process, 'state_array', 'c/array 5')).toMatch(/^ERR_STATE_RANGE/)
    expect(await say(process, 'state_array_type', 'c/array 5')).toMatch(/^ERR_STATE_TYPE/)
    await process.state.set('c/no-array', bytesOf('value'))
    expect(await say(process, 'state_array_type', 'c/no-array 9')).toMatch(/^ERR_STATE_TYPE/)
  })

  it.each([
    [1, 'Int8Array', 4],
    [2, 'Uint8Array', 4],
    [3, 'Uint8ClampedArray', 4],
    [4, 'Int16Array', 8],
    [5, 'Uint16Array', 8],
    [6, 'Int32Array', 16],
    [7, 'Uint32Array', 16],
    [8, 'Float32Array', 16],
    [9, 'Float64Array', 32],
    [10, 'BigInt64Array', 32],
    [11, 'BigUint64Array', 32],
  ])('of type %i are %ss', async (type, elementType, byteLength) => {
    expect(await say(process, 'state_array_type', `c/type/${type} ${type}`)).toBe('OK')
    expect(await process.state.stat(`c/type/${type}`)).toMatchObject({ kind: 'array', elementType, byteLength })
  })

  it.each([0, 12, 4096])('of type %i are not', async (type) => {
    expect(await say(process, 'state_array_type', `c/wrong ${type}`)).toMatch(/^ERR_(ARGUMENT_INVALID|STATE_TYPE)/)
    expect(await process.state.stat('c/wrong')).toBeUndefined()
  })

  it('are changed by all workers at once, with atomics or a lock', async () => {
    await untilReady(process, 2)
    for (const name of ['count_atomically', 'count_locked']) {
      const key = `c/${name}`
      await Promise.all(Array.from({ length: 8 }, () => process.invoke(name, bytesOf(`${key} 500`))))
      const counted = await process.state.get(key)
      expect(counted && Buffer.from(counted).readInt32LE()).toBe(4000)
    }
  })
})

describe('locks', () => {
  it('praas_state_lock lets readers in together and writers alone, praas_state_unlock once', async () => {
    const [one, two, writer, unlocked, again] = (await say(process, 'locks', 'c/lock 30')).split(' ')
    expect([one, two, writer, unlocked]).toEqual(['OK', 'OK', 'ERR_STATE_LOCK_TIMEOUT', 'OK'])
    expect(again).toMatch(/^ERR_/)
    await using _lock = await process.state.lock('c/lock', 'write', { timeoutMs: 5_000 })
  })

  it('of clients keep functions out', async () => {
    const held = await process.state.lock('c/held', 'read')
    expect(await say(process, 'locks', 'c/held 30')).toMatch(/^OK OK ERR_STATE_LOCK_TIMEOUT/)
    await held.release()
    const write = await process.state.lock('c/held', 'write')
    expect(await say(process, 'locks', 'c/held 30')).toMatch(/^ERR_STATE_LOCK_TIMEOUT ERR_STATE_LOCK_TIMEOUT/)
    const waiting = say(process, 'lock_and_leave', 'c/held')
    await write.release()
    expect(await waiting).toBe('OK')
  })

  it('are released with the invocation that kept them', async () => {
    expect(await say(process, 'lock_and_leave', 'c/kept')).toBe('OK')
    await using _lock = await process.state.lock('c/kept', 'write', { timeoutMs: 5_000 })
  })

  it('are released with the worker that died with them', async () => {
    const failure = await failureOf(process.invoke('lock_and_die', bytesOf('c/dead')))
    expect(failure).toMatchObject({ code: 'ERR_WORKER_CRASHED', signal: 'SIGABRT' })
    await using _lock = await process.state.lock('c/dead', 'write', { timeoutMs: 20_000 })
  })
})
