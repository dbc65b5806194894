/** More bytes than one buffer can hold, both ways, through 16 MiB of payload memory. */
import { expect, it } from 'vitest'
import { clusterForTest } from '../support/cluster.js'

const blockBytes = 1 << 20
const blocks = 5 * 1024

it('carries 5 GiB there and back', { timeout: 600_000 }, async () => {
  const { cluster } = await clusterForTest({ pool: '16 MiB', window: '16 MiB', checkViews: false })
  const served = await cluster.process('five-gib')
  async function* source(): AsyncGenerator<Uint8Array> {
    for (let block = 0; block < blocks; block++) yield new Uint8Array(blockBytes).fill(block % 251)
  }

  const expected = Buffer.alloc(blockBytes)
  let filled = -1
  let received = 0
  for await (const chunk of served.invokeStream('relay', source(), { timeoutMs: 590_000 })) {
    // Chunks come back in other sizes than they were sent in.
    for (let done = 0; done < chunk.byteLength;) {
      const block = Math.floor(received / blockBytes)
      if (block !== filled) expected.fill((filled = block) % 251)
      const at = received % blockBytes
      const length = Math.min(chunk.byteLength - done, blockBytes - at)
      if (expected.compare(chunk, done, done + length, at, at + length) !== 0) {
        expect.fail(`byte ${received} and following differ`)
      }
      done += length
      received += length
    }
  }
  expect(received).toBe(blocks * blockBytes)
})
