/** Reads what the workers of a process print, from any place on. */
import { watch } from 'node:fs'
import { open, stat } from 'node:fs/promises'
import { dirname } from 'node:path'
import type { LogChunk } from '../control.js'
import { codeOf } from '../errors.js'

const maxChunkBytes = 256 * 1024

/**
 * @param offset  Bytes from the start of the log; negative: from its end. Beyond the end, after the log was begun anew: all.
 * @param waitMs  How long to wait for more when there is nothing after `offset`.
 */
export async function readLog(path: string, offset: number, waitMs: number, signal?: AbortSignal): Promise<LogChunk> {
  const chunk = await readFrom(path, offset)
  if (chunk.text !== '' || waitMs <= 0) return chunk
  await changed(path, waitMs, signal)
  return readFrom(path, chunk.next)
}

async function readFrom(path: string, offset: number): Promise<LogChunk> {
  const bytes = await sizeOf(path)
  const fromEnd = offset < 0
  const start = fromEnd ? Math.max(0, bytes + offset) : offset > bytes ? 0 : offset
  if (start >= bytes) return { text: '', next: start }
  const file = await open(path)
  try {
    const buffer = Buffer.alloc(Math.min(bytes - start, maxChunkBytes))
    const { bytesRead } = await file.read(buffer, 0, buffer.length, start)
    // Only whole lines: a character may be written in two parts. What is after the last newline comes the next time.
    const end = buffer.lastIndexOf(0x0a, bytesRead - 1) + 1 || (bytesRead === maxChunkBytes ? bytesRead : 0)
    const begin = fromEnd && start > 0 ? buffer.indexOf(0x0a) + 1 : 0
    return { text: buffer.toString('utf8', Math.min(begin, end), end), next: start + end }
  } finally {
    await file.close()
  }
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 0
    throw error
  }
}

/** Resolves when something in the log's folder changes, when the time is over, or when the signal aborts. */
function changed(path: string, waitMs: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve()
    const watcher = watch(dirname(path), { persistent: false })
    const end = (): void => {
      watcher.close()
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer = setTimeout(end, waitMs)
    signal?.addEventListener('abort', end, { once: true })
    watcher.on('change', end)
    watcher.on('error', end)
  })
}
