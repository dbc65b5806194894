/**
 * Bytes that tell who made them, and whether they are whole.
 *
 * A *record* is {magic u32, bytes u32, id u64, crc32 u32, 0 u32} and a body that follows from the id. Values of keys are
 * sequences of records; inputs and results of calls are one record each. All integers are little-endian.
 */
import { crc32 } from 'node:zlib'

export const recordHeader = 24
/** The ids of records that an operation writes follow from its own. */
export const recordsPerId = 4
const magic = 0x46_4c_54_31

/** Of `byteLength` bytes, at least `recordHeader`. */
export function makeRecord(id: number, byteLength: number): Buffer {
  const record = Buffer.allocUnsafe(byteLength)
  record.writeUInt32LE(magic, 0)
  record.writeUInt32LE(byteLength, 4)
  record.writeBigUInt64LE(BigInt(id), 8)
  record.writeUInt32LE(0, 20)
  const body = record.subarray(recordHeader)
  const seed = Math.min(body.byteLength, 256)
  for (let index = 0; index < seed; index++) body[index] = (id + index * 7) & 0xff
  for (let filled = seed; filled > 0 && filled < body.byteLength; filled *= 2) body.copyWithin(filled, 0, filled)
  // Pages differ from each other, so that one in the place of another is found.
  for (let at = 0; at + 4 <= body.byteLength; at += 4096) body.writeUInt32LE((id + at) >>> 0, at)
  record.writeUInt32LE(crc32(body), 16)
  return record
}

/** The ids of the records that are all there is. @throws an error that says what is torn. */
export function readRecords(bytes: Uint8Array): number[] {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const ids: number[] = []
  for (let at = 0; at < buffer.byteLength;) {
    const where = `at ${at} of ${buffer.byteLength} bytes`
    if (at + recordHeader > buffer.byteLength) throw new Error(`the head of a record is cut ${where}`)
    if (buffer.readUInt32LE(at) !== magic) throw new Error(`there is no record ${where}`)
    const end = at + buffer.readUInt32LE(at + 4)
    const id = Number(buffer.readBigUInt64LE(at + 8))
    if (end > buffer.byteLength || end < at + recordHeader) throw new Error(`record ${id} is cut ${where}`)
    if (crc32(buffer.subarray(at + recordHeader, end)) !== buffer.readUInt32LE(at + 16)) {
      throw new Error(`record ${id} does not match its checksum ${where}`)
    }
    ids.push(id)
    at = end
  }
  return ids
}
