import { expect, it } from 'vitest'
import type { Link } from '../../src/client/link.js'
import type { Session } from '../../src/client/session.js'
import { invokeStream } from '../../src/client/stream.js'

it('ends with an abort that comes just before the call begins', async () => {
  const abort = new AbortController()
  const cancelled: bigint[] = []
  const session = {
    info: { defaultTimeoutMs: 60_000 },
    connection: { openStream: () => 5n },
    resolve: async () => {
      abort.abort(new Error('enough'))
      return { index: 0, stream: true }
    },
    cancel: (id: bigint) => cancelled.push(id),
  } as unknown as Session
  const link = { session: async () => session } as unknown as Link
  async function* silent(): AsyncGenerator<Uint8Array> {
    await new Promise(() => undefined)
    yield new Uint8Array()
  }
  await expect(invokeStream(link, 'f', silent(), { signal: abort.signal }).next()).rejects.toThrow('enough')
  expect(cancelled).toEqual([5n])
})
