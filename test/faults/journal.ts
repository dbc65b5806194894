/**
 * What functions write down outside of praas, so that no kill loses it: entries of 32 bytes, {id u64, event u16, argument u16,
 * pid u32, nanoseconds of the monotonic clock u64, subject u64}, appended to one file by everybody. test/faults/functions.c
 * writes the same.
 */
import { closeSync, openSync, readFileSync, truncateSync, writeSync } from 'node:fs'

export const events = {
  ...{ begin: 1, end: 2, locked: 3, unlocking: 4 },
  /** Of messages: it is in the mailbox; it certainly is not; it was taken; there was none; none was taken, for another reason. */
  ...{ put: 5, refused: 6, took: 7, empty: 8, failed: 10 },
  forked: 9,
} as const
export const journalVariable = 'FAULTS_JOURNAL'
const entryBytes = 32

export interface Entry {
  /** Of the call. */
  readonly id: number
  readonly event: number
  /** Of locks: their number, and 256 for writers. */
  readonly argument: number
  readonly pid: number
  readonly atMs: number
  /** Of messages: their record; of forks: the OS process that was left behind. */
  readonly subject: number
}

export class Journal {
  readonly #fd: number
  readonly #entry = Buffer.alloc(entryBytes)

  constructor(path: string) {
    this.#fd = openSync(path, 'a')
  }

  note(id: bigint, event: number, argument = 0, subject = 0): void {
    this.#entry.writeBigUInt64LE(id, 0)
    this.#entry.writeUInt16LE(event, 8)
    this.#entry.writeUInt16LE(argument, 10)
    this.#entry.writeUInt32LE(process.pid, 12)
    this.#entry.writeBigUInt64LE(process.hrtime.bigint(), 16)
    this.#entry.writeBigUInt64LE(BigInt(subject), 24)
    writeSync(this.#fd, this.#entry)
  }

  close(): void {
    closeSync(this.#fd)
  }
}

/** All entries, in the order they were appended. */
export function readJournal(path: string): Entry[] {
  const bytes = readFileSync(path)
  const entries: Entry[] = []
  for (let at = 0; at + entryBytes <= bytes.byteLength; at += entryBytes) {
    entries.push({
      id: Number(bytes.readBigUInt64LE(at)),
      event: bytes.readUInt16LE(at + 8),
      argument: bytes.readUInt16LE(at + 10),
      pid: bytes.readUInt32LE(at + 12),
      atMs: Number(bytes.readBigUInt64LE(at + 16)) / 1e6,
      subject: Number(bytes.readBigUInt64LE(at + 24)),
    })
  }
  return entries
}

/** While nothing runs that writes to it. */
export function emptyJournal(path: string): void {
  truncateSync(path, 0)
}
