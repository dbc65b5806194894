/** What the tests on RDMA devices share. */
import { onTestFinished } from 'vitest'
import type { Cluster } from '../../src/client/cluster.js'
import { connect, type ConnectOptions } from '../../src/client/connect.js'
import { native, type RdmaSurvey } from '../../src/native/binding.js'

/** What is tested. */
export const transport = 'verbs'

/** A device that can be used, or an error: `scripts/test-rdma` runs these tests only where there is one. */
export function usableDevice(): string {
  const { devices = [] } = JSON.parse(native().surveyRdma()) as RdmaSurvey
  const found = devices.find(({ ports }) => ports.some(({ active }) => active))
  if (!found) throw new Error('there is no RDMA device with an active port here; scripts/test-rdma finds or makes one')
  return found.name
}

/** A client for one test. */
export async function clientForTest(url: string | undefined, options: ConnectOptions): Promise<Cluster> {
  const client = await connect(url, options)
  onTestFinished(() => client.close())
  return client
}

/** Bytes that differ from their neighbours, from page to page, and by `seed`. Cheap, because a processor may be emulated. */
export function pattern(byteLength: number, seed = 0): Buffer {
  const bytes = Buffer.alloc(byteLength)
  const page = Math.min(byteLength, 4096)
  for (let index = 0; index < page; index++) bytes[index] = index * 31 + seed
  for (let filled = page; filled > 0 && filled < byteLength; filled *= 2)
    bytes.copyWithin(filled, 0, byteLength - filled)
  for (let at = 0; at + 4 <= byteLength; at += 4096) bytes.writeUInt32LE((at / 4096 + seed) >>> 0, at)
  return bytes
}

/** Nothing, a byte, both sides of what goes inline, of a slot, and of a packet, and what takes many packets. */
export const sizes = [0, 1, 63, 64, 255, 256, 257, 4095, 4096, 4097, 65_536, 65_537, 1 << 20] as const
