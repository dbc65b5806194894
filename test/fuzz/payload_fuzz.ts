/** Any bytes as a payload: the codec's number in the first, then what somebody calls a function with, or what it answers. */
import assert from 'node:assert/strict'
import { rawCodec, unpackTraits } from '../../src/codecs.js'
import { unlessRefused } from './support.js'

export async function fuzz(data: Uint8Array): Promise<void> {
  if (data.byteLength === 0) return
  const codec = await unlessRefused(['ERR_PAYLOAD_CODEC'], () => unpackTraits((data[0] ?? 0) << 8).input)
  if (!codec) return
  // A Buffer, and at an odd place: what is hardest to make elements of.
  const bytes = Buffer.from(data.buffer, data.byteOffset + 1, data.byteLength - 1)
  const kept = Uint8Array.from(bytes)
  const decoded = await unlessRefused(['ERR_PAYLOAD_CODEC'], () => ({ value: codec.decode(bytes) }))
  assert.ok(bytes.equals(kept))
  if (!decoded) return
  if (ArrayBuffer.isView(decoded.value) && codec.name !== 'structured') {
    assert.equal(decoded.value.byteLength, bytes.byteLength)
    assert.deepEqual(Uint8Array.from(rawCodec.encode(decoded.value)), kept)
  }
  // What was taken in can be said again, unless it is no value of the codec or too deep.
  const again = await unlessRefused(['ERR_PAYLOAD_CODEC'], () => codec.encode(decoded.value))
  if (again && codec.name === 'json') {
    // Without what JSON cannot say: -0, 1e999. Nothing at all is undefined.
    const said = JSON.stringify(decoded.value) as string | undefined
    assert.deepEqual(codec.decode(again), said === undefined ? undefined : (JSON.parse(said) as unknown))
  }
}
