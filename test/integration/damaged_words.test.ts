/** Hosts whose frames are right, and whose words in them are not. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { Transform, type TransformCallback } from 'node:stream'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Process } from '../../src/client/process.js'
import { failureOf } from '../support/cluster.js'
import { collected, pidOf, processFor, started, take, until } from '../support/leases.js'
import { handleOf, processAt } from '../support/process_at.js'

/** FrameType of native/protocol/frame.h. */
const frameTypes = { adminReply: 16, leaseReply: 21, leaseNotice: 22 } as const
const headerBytes = 64

/** Frames from a host, of some types without the braces that begin JSON's objects. */
class Damage extends Transform {
  #left = Buffer.alloc(0)
  readonly #types: ReadonlySet<number>

  constructor(types: ReadonlySet<number>) {
    super()
    this.#types = types
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#left = Buffer.concat([this.#left, chunk])
    while (this.#left.length >= headerBytes) {
      const end = headerBytes + Number(this.#left.readBigUInt64LE(32))
      if (this.#left.length < end) break
      const frame = this.#left.subarray(0, end)
      this.#left = this.#left.subarray(end)
      const damaged = this.#types.has(frame.readUInt8(5))
      for (let at = headerBytes; damaged && at < end; at++) if (frame[at] === 0x7b) frame[at] = 0x3f
      this.push(frame)
    }
    done()
  }
}

/** A process of one test, and the types of frames that are damaged on their way from its host from now on. */
async function processBehindDamage(): Promise<{ process: Process; damaged: Set<number> }> {
  const handle = await handleOf(started, (await processFor('tcp')).id)
  const damaged = new Set<number>()
  const between = createServer((client) => {
    const host = connect(handle.endpoint.port, handle.endpoint.host)
    client.pipe(host).pipe(new Damage(damaged)).pipe(client)
    client.on('error', () => host.destroy()).on('close', () => host.destroy())
    host.on('error', () => client.destroy()).on('close', () => client.destroy())
  }).listen(0, '127.0.0.1')
  onTestFinished(() => void between.close())
  await once(between, 'listening')
  const { port } = between.address() as AddressInfo
  return { process: processAt(handle, { host: '127.0.0.1', port }), damaged }
}

describe('a host that tells its clients what is no JSON', () => {
  it('of the end of a lease ends it as any does, and is asked again for the report', async () => {
    const { process, damaged } = await processBehindDamage()
    const { notices, onNotice } = collected()
    const lease = await take(process, { ttlMs: 300, renew: false, onNotice })
    damaged.add(frameTypes.leaseNotice)
    expect(await until(notices, 'ended')).toMatchObject({ error: { code: 'ERR_LEASE_EXPIRED' }, report: undefined })
    expect(await failureOf(lease.invoke('echo'))).toMatchObject({ code: 'ERR_LEASE_EXPIRED' })
    expect(await lease.close()).toMatchObject({ lease: Number(lease.id), state: 'ended' })
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
  })

  it('of the end of a worker has it replaced as any is', async () => {
    const { process, damaged } = await processBehindDamage()
    const { notices, onNotice } = collected()
    const lease = await take(process, { onNotice })
    damaged.add(frameTypes.leaseNotice).add(frameTypes.leaseReply)
    const before = pidOf(lease)
    globalThis.process.kill(before, 'SIGKILL')
    expect(await until(notices, 'workerEnded')).toEqual({ event: 'workerEnded', worker: 0, exit: {} })
    await until(notices, 'workerReady')
    damaged.clear()
    expect(await lease.invoke('add', { a: 1, b: 2 })).toBe(3)
  })
  it('in its answers fails whoever has asked', async () => {
    const { process, damaged } = await processBehindDamage()
    const invalid = { code: 'ERR_PROTOCOL_INVALID' }
    const lease = await take(process)
    damaged.add(frameTypes.leaseReply).add(frameTypes.adminReply)
    expect(await failureOf(lease.accounting())).toMatchObject(invalid)
    expect(await failureOf(process.leases())).toMatchObject(invalid)
    expect(await failureOf(process.statistics())).toMatchObject(invalid)
    expect(await failureOf(process.lease())).toMatchObject(invalid)
    damaged.clear()
    // What could not be taken has been given back.
    await expect.poll(async () => (await process.leases()).leases.map((held) => held.lease)).toEqual([Number(lease.id)])
    expect(await lease.accounting()).toMatchObject({ state: 'active' })
  })
})
