import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { NativeConnection } from '../../src/native/binding.js'
import { bytes, fn, TestHost, thrown } from './support.js'

const long = 60_000

let host: TestHost
let connection: NativeConnection
beforeAll(async () => {
  host = await TestHost.start({ concurrency: 4 })
  connection = await host.connect()
})
afterAll(() => host.stop())

/** Sends `total` bytes in pieces through the echo stream and gives what came back. */
function echo(total: number, piece: number): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const received: Uint8Array[] = []
    let sent = 0
    let done = false
    const source = (from: number): Uint8Array =>
      Uint8Array.from({ length: Math.min(piece, total - from) }, (_, i) => (from + i) % 253)
    const push = (): void => {
      while (!done) {
        const chunk = source(sent)
        const taken = connection.sendChunk(id, chunk, sent + chunk.length === total)
        sent += taken
        if (taken === chunk.length && sent === total) done = true
        else if (taken < chunk.length) return // room() follows
      }
    }
    const id = connection.openStream(fn(connection, 'stream'), 0, long, {
      chunk: (chunk) => {
        received.push(chunk)
        connection.consumed(id, chunk.length)
      },
      room: push,
      end: (error) => (error ? reject(error) : resolve(Buffer.concat(received))),
    })
  })
}

describe('streams', () => {
  it.each([
    [0, 1],
    [1, 1],
    [100_000, 1000],
    [8 << 20, 256 << 10],
    [3_000_001, 300_000],
  ])('carry %i bytes in pieces of %i', async (total, piece) => {
    const back = await echo(total, piece)
    expect(back.length).toBe(total)
    for (let i = 0; i < total; i += 1 + Math.floor(total / 1000)) expect(back[i]).toBe(i % 253)
    expect(connection.inFlight).toBe(0)
  })

  it('run side by side', async () => {
    const all = await Promise.all([echo(500_000, 10_000), echo(700_000, 70_000), echo(10, 3)])
    expect(all.map(({ length }) => length)).toEqual([500_000, 700_000, 10])
  })

  it('end with an error when the call is cancelled', async () => {
    const ended = await new Promise<(Error & { code?: string }) | undefined>((resolve) => {
      const id = connection.openStream(fn(connection, 'stream'), 0, long, {
        chunk: () => undefined,
        room: () => undefined,
        end: resolve,
      })
      connection.cancel(id)
    })
    expect(ended).toHaveProperty('code')
  })

  it('end with an error when the connection is closed', async () => {
    const other = await host.connect()
    const ended = new Promise<(Error & { code?: string }) | undefined>((resolve) => {
      other.openStream(fn(other, 'stream'), 0, long, { chunk: () => undefined, room: () => undefined, end: resolve })
    })
    other.close()
    expect(await ended).toMatchObject({ code: 'ERR_CONNECTION_CLOSED' })
  })

  it('check their callbacks', () => {
    const open = (events: unknown): unknown => connection.openStream(0, 0, long, events as never)
    expect(thrown(() => open(undefined))).toBeInstanceOf(TypeError)
    expect(thrown(() => open({ chunk: 1, room: () => undefined, end: () => undefined })).message).toContain('chunk')
    expect(thrown(() => connection.sendChunk(1n << 60n, bytes('x'), true))).toHaveProperty('code')
  })
})
