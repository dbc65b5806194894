import { describe, expect, it } from 'vitest'
import { native } from '../../src/native/binding.js'
import { sanitized } from '../support/sanitized.js'
import { thrown } from './support.js'

const addon = native()
const options = {
  host: '127.0.0.1',
  port: 1,
  process: 'p',
  token: 't',
  transport: 'tcp' as const,
  timeoutMs: 1_000,
  windowBytes: 1 << 24,
  checksum: false,
  spinUs: 0,
}

describe('the addon', () => {
  it('exports what binding.ts declares', () => {
    expect(Object.keys(addon).sort()).toEqual([
      'attachWorker',
      'capabilities',
      'connect',
      'inspectSegment',
      'limits',
      'processStartTime',
      'raiseOpenFiles',
      'segmentLocked',
      'surveyRdma',
      'unlinkMessageQueue',
      'unlinkSharedMemory',
    ])
  })

  it('says what it can do and what is missing', () => {
    const { version, napi, debug, transports, missing } = addon.capabilities()
    expect(version).toMatch(/^\d+\.\d+\.\d+/)
    expect(napi).toBe(8)
    expect(debug).toBe(sanitized !== undefined)
    expect(transports).toEqual(missing.verbs === undefined ? ['shm', 'verbs', 'tcp'] : ['shm', 'tcp'])
    expect(Object.values(missing).every((reason) => reason.length > 0)).toBe(true)
  })

  it('reads the limits of the OS process', () => {
    const limits = addon.limits()
    expect(limits.openFiles).toBeGreaterThan(0)
    expect(limits.openFilesHard).toBeGreaterThanOrEqual(limits.openFiles)
    expect(limits.memlockBytes).toBeGreaterThanOrEqual(0)
    expect(limits.msgqueueBytes).toBeGreaterThanOrEqual(0)
    expect(addon.raiseOpenFiles()).toBe(limits.openFilesHard)
  })

  it('tells OS processes with the same pid apart', () => {
    const started = addon.processStartTime(process.pid)
    expect(started).toMatch(/^\d+$/)
    expect(addon.processStartTime(process.pid)).toBe(started)
    expect(addon.processStartTime(2 ** 22)).toBeUndefined()
    expect(() => addon.processStartTime(0)).toThrow(RangeError)
  })

  it('says whether there was something to unlink', () => {
    expect(addon.unlinkSharedMemory('/praas-addon-never-made')).toBe(false)
    expect(addon.unlinkMessageQueue('/praas-addon-never-made')).toBe(false)
    expect(() => addon.unlinkSharedMemory('../etc/passwd')).toThrow(RangeError)
  })

  it('gives OS failures the OS name, a negative errno and the call', () => {
    const error = thrown(() => addon.segmentLocked('/praas-addon-never-made'))
    expect(error).toMatchObject({ code: 'ENOENT', errno: -2, syscall: 'shm_open' })
  })

  it.each([
    ['host', 5, TypeError],
    ['port', 0, RangeError],
    ['port', 65_536, RangeError],
    ['port', 1.5, RangeError],
    ['port', '1', TypeError],
    ['process', undefined, TypeError],
    ['timeoutMs', Number.NaN, RangeError],
    ['timeoutMs', -1, RangeError],
    ['timeoutMs', Infinity, RangeError],
    ['windowBytes', -1, RangeError],
    ['checksum', 1, TypeError],
    ['spinUs', 1e9, RangeError],
    ['leaseKey', 5, TypeError],
    ['leaseKey', null, TypeError],
    ['leaseWorker', 1000, RangeError],
    ['leaseWorker', '0', TypeError],
  ])('connect() names the bad option %s = %s', (name, value, type) => {
    const error = thrown(() => void addon.connect({ ...options, [name]: value }))
    expect(error).toBeInstanceOf(type)
    expect(error).toMatchObject({ code: 'ERR_ARGUMENT_INVALID', message: expect.stringContaining(name) })
  })

  it('rejects when nobody listens', async () => {
    await expect(addon.connect(options)).rejects.toMatchObject({ code: 'ERR_CONNECTION_LOST' })
    await expect(addon.connect({ ...options, transport: 'pigeon' as never })).rejects.toHaveProperty('code')
    await expect(addon.connect({ ...options, leaseKey: 'ab', leaseWorker: 0 })).rejects.toHaveProperty('code')
  })

  it('refuses descriptors that are none', () => {
    expect(() => addon.attachWorker(-1)).toThrow(RangeError)
    expect(thrown(() => void addon.attachWorker(1 << 20))).toMatchObject({ code: 'EBADF' })
  })
})
