/**
 * What a client does, line by line in a file: before it begins an operation, and when that was answered. A successor of a client
 * that was killed goes on from there, and the driver checks what no client can see alone.
 */
import { closeSync, existsSync, openSync, readFileSync, renameSync, truncateSync, writeSync } from 'node:fs'
import type { Seen, Write, WriteAnswer } from './register.js'

/** Times are milliseconds of the monotonic clock. */
export type Line =
  | Begun
  | Ended
  /** A lock is about to be released; how that went is its `released`. */
  | { readonly unlocking: number; readonly at: number }
  | { readonly unlocked: number; readonly at: number; readonly code?: string }
  /** Where the history begins, after everything stood still. */
  | { readonly snapshot: Snapshot }

export interface Begun {
  readonly begin: number
  readonly at: number
  readonly lane: number
  readonly kind: string
  readonly process: string
  /** From the beginning; without one it cannot be late. */
  readonly timeoutMs: number
  readonly key?: string
  readonly write?: Write
  /** Of calls: the function; ids of all orders if there are several. */
  readonly fn?: string
  readonly ids?: readonly number[]
  readonly idempotent?: boolean
  readonly mode?: 'read' | 'write'
  readonly route?: string
  /** Of calls: the transport of their connection when they began. */
  readonly over?: string
  readonly hostPid?: number | undefined
}

export interface Ended {
  readonly end: number
  readonly at: number
  /** Of the error. */
  readonly code?: string
  /** Beyond its deadline, less what this client blocked its own thread. */
  readonly lateMs: number
  readonly result?: Result
}

export interface Result {
  readonly answer?: WriteAnswer
  readonly seen?: Seen
  readonly count?: number
  /** The code of what a function threw. */
  readonly thrown?: string
}

export interface Snapshot {
  readonly registers: Readonly<Record<string, { readonly records?: readonly number[]; readonly version?: string }>>
  readonly counters: Readonly<Record<string, number>>
  /** Of operations. */
  readonly nextId: number
}

export class History {
  readonly #path: string
  #fd: number

  constructor(path: string) {
    this.#path = path
    // A line of who wrote here before and was killed meanwhile, if it lies on two pages: what it tells of had not begun,
    // or its end is not known.
    if (existsSync(path)) truncateSync(path, readFileSync(path).lastIndexOf('\n') + 1)
    this.#fd = openSync(path, 'a')
  }

  write(line: Line): void {
    writeSync(this.#fd, `${JSON.stringify(line)}\n`)
  }

  /** Keeps what was written until now as PATH.checked, where the driver reads it. */
  restart(snapshot: Snapshot): void {
    closeSync(this.#fd)
    renameSync(this.#path, `${this.#path}.checked`)
    this.#fd = openSync(this.#path, 'a')
    this.write({ snapshot })
  }
}

/** The last line may be cut: its writer was killed. */
export function readHistory(path: string): Line[] {
  if (!existsSync(path)) return []
  const lines = readFileSync(path, 'utf8').split('\n')
  lines.pop()
  return lines.map((line) => JSON.parse(line) as Line)
}
