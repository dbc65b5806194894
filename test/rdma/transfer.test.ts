/**
 * Many bytes there and back, all of them compared: in calls of 64 KiB to 64 MiB, each size a share of the whole.
 * PRAAS_TEST_TRANSFER says how much that is in one direction, such as 10GiB.
 */
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { parseSize } from '../../src/units.js'
import { startCluster, type TestCluster } from '../support/cluster.js'
import { pattern, transport, usableDevice } from './support.js'

const whole = parseSize(process.env['PRAAS_TEST_TRANSFER'] ?? '256MiB', 'PRAAS_TEST_TRANSFER')
const sizes = [64 << 10, 1 << 20, 16 << 20, 64 << 20] as const
const share = whole / sizes.length

let started: TestCluster
let served: Process

beforeAll(async () => {
  usableDevice()
  started = await startCluster({ transport, workers: 2, pool: '1GiB', checkViews: false })
  served = await started.cluster.process('transfer')
})
afterAll(() => started?.close())

it.each(sizes)('carries its share in calls of %d bytes', { timeout: 7_200_000 }, async (byteLength) => {
  const count = Math.max(1, Math.round(share / byteLength))
  // Two lanes, so that transfers overlap; each numbers its payloads, so that none is taken for another.
  let next = 0
  const lane = async (): Promise<number> => {
    const input = pattern(byteLength)
    let done = 0
    for (let number = next++; number < count; number = next++) {
      input.writeUInt32LE(number, byteLength - 4)
      const result = await served.invoke('echo', input, { timeoutMs: 600_000 })
      if (!input.equals(result)) expect.fail(`call ${number} of ${byteLength} bytes gave other bytes back`)
      done++
    }
    return done
  }
  const [one, other] = await Promise.all([lane(), lane()])
  expect(one + other).toBe(count)
  expect(served.transport).toBe(transport)
})
