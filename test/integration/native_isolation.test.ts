/** What of the memory of others a native worker can reach. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, libraries, pattern, processBy, uint32, untilReady } from '../support/native.js'

const page = 4096
const limit = 100_000
const areaBytes = Math.ceil(limit / page) * page
/** Header, calls and rings of a window: native/window/layout.h. Payloads follow. */
const windowControlBytes = 0x9000

interface Mapping {
  readonly begin: bigint
  readonly end: bigint
  readonly access: string
  readonly offset: number
  readonly name: string
}

function mappingsOf(pid: number): Mapping[] {
  return readFileSync(`/proc/${pid}/maps`, 'utf8')
    .split('\n')
    .flatMap((line) => {
      const match = /^([0-9a-f]+)-([0-9a-f]+) (\S+) ([0-9a-f]+) \S+ \d+ *(.*)$/.exec(line)
      if (!match) return []
      const [, begin, end, access = '', offset = '', name = ''] = match
      return [{ begin: BigInt(`0x${begin}`), end: BigInt(`0x${end}`), access, offset: parseInt(offset, 16), name }]
    })
}

const bytesIn = ({ begin, end }: Mapping): number => Number(end - begin)
const isWritable = ({ access }: Mapping): boolean => access.includes('w')
const isPayload = ({ name, offset }: Mapping): boolean =>
  name.includes('memfd:praas-pool') || (name.includes('memfd:praas-window') && offset >= windowControlBytes)

let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ workers: 1 })
  const functions = { copy: {}, full: {}, infinite_loop: {}, result_address: {}, write_input: {} }
  await started.cluster.deploy({ native: libraries.rfaas, name: 'raw', maxOutput: limit, functions })
  await started.cluster.deploy({ native: [libraries.rfaas, libraries.c], name: 'both', maxOutput: limit })
})
afterAll(() => started.close())

/** Its worker, after calls of several clients over both transports, with payloads of all sizes. */
async function usedWorker(app: string): Promise<{ shm: Process; tcp: Process; pid: number }> {
  await started.cluster.process(app, { app })
  const [shm, other, tcp] = [
    await processBy('shm', started, app),
    await processBy('shm', started, app),
    await processBy('tcp', started, app),
  ]
  for (const process of [shm, other, tcp]) {
    for (const size of [0, 1, page, page + 1, limit]) {
      await process.invoke('copy', pattern(size))
      await process.invoke('write_input', pattern(size))
    }
  }
  const [pid = 0] = await untilReady(shm, 1)
  return { shm, tcp, pid }
}

describe.each(['raw', 'both'])('a worker with raw functions (%s)', (app) => {
  it.each(['shm', 'tcp'] as const)('that runs a call over %s can write to its result only', async (transport) => {
    const used = await usedWorker(app)
    const call = failureOf(used[transport].invoke('infinite_loop', pattern(limit), { timeoutMs: 2_000 }))
    // Until the call runs, the area of the call before may be open.
    await expect
      .poll(() => {
        const payloads = mappingsOf(used.pid).filter(isPayload)
        expect(payloads.length).toBeGreaterThan(0)
        return payloads.filter(isWritable).map(bytesIn)
      })
      .toEqual([areaBytes])
    expect(await call).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
  })

  it('has nothing that can be read or written around its results', async () => {
    const { shm, pid } = await usedWorker(app)
    const address = Buffer.from(await shm.invoke('result_address')).readBigUInt64LE()
    expect(address % 16n).toBe(0n)
    const mappings = mappingsOf(pid)
    const index = mappings.findIndex(({ begin, end }) => begin <= address && address < end)
    const area = mappings[index]
    expect(area && bytesIn(area)).toBe(areaBytes)
    // The result ends with the area, but for what aligns it.
    expect(Number((area?.end ?? 0n) - address)).toBe(Math.ceil(limit / 16) * 16)
    for (const [gap, edge] of [
      [mappings[index - 1], 'end'],
      [mappings[index + 1], 'begin'],
    ] as const) {
      expect(gap?.access).toMatch(/^---/)
      expect(gap?.[edge]).toBe(edge === 'end' ? area?.begin : area?.end)
      expect(gap && bytesIn(gap)).toBeGreaterThanOrEqual(Math.max(2 ** 20, areaBytes))
    }
  })

  it('maps an area once, not for each call', async () => {
    const { shm } = await usedWorker(app)
    const addresses = new Set<bigint>()
    for (let call = 0; call < 20; call++) addresses.add(Buffer.from(shm.invokeSync('result_address')).readBigUInt64LE())
    expect(addresses.size).toBeLessThanOrEqual(2)
  })
})

it('a worker with raw functions only cannot reach the state', async () => {
  const { shm, pid } = await usedWorker('raw')
  await shm.state.set('key', bytesOf('value'))
  expect((await shm.invoke('full', uint32(limit))).byteLength).toBe(limit)
  const { segment } = await shm.describe()
  const state = mappingsOf(pid).filter(({ name }) => name.includes(segment))
  expect(state.some(({ access }) => access.startsWith('---'))).toBe(true)
  const open = state.filter(({ access }) => !access.startsWith('---'))
  // What is left are the tables of calls and workers at its begin.
  expect(open.map(({ offset }) => offset)).toEqual([0])
})
