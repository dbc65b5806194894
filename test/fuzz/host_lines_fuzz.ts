/** Any bytes as what the pipe from a process host delivers: how many at a time, then the lines. */
import assert from 'node:assert/strict'
import { formatLine, LineSplitter, parseLine } from '../../src/agent/line_protocol.js'
import { unlessRefused } from './support.js'

export async function fuzz(data: Uint8Array): Promise<void> {
  const bytes = data.subarray(1)
  const lines = split(bytes, Math.max(1, data[0] ?? 0))
  assert.deepEqual(lines, split(bytes, Math.max(1, bytes.byteLength)))
  assert.equal(lines.length, bytes.filter((byte) => byte === 0x0a).length)
  for (const text of lines) {
    const line = await unlessRefused(['ERR_INTERNAL'], () => parseLine(text))
    if (line) assert.deepEqual(parseLine(formatLine(line.verb, line.values).trimEnd()), line)
  }
}

function split(bytes: Uint8Array, size: number): string[] {
  const splitter = new LineSplitter()
  const lines: string[] = []
  for (let at = 0; at < bytes.byteLength; at += size) lines.push(...splitter.add(bytes.subarray(at, at + size)))
  return lines
}
