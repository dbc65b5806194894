/** What commands print: results to stdout, everything about them to stderr. */
import { SingleBar, Presets } from 'cli-progress'
import Table from 'cli-table3'
import { codeOf, FunctionError, PraasError } from '../errors.js'
import { formatSize } from '../units.js'

/** One JSON document per command, for scripts. Versions and ids are texts, because JSON numbers cannot hold them. */
export function printJson(value: unknown): void {
  const text = JSON.stringify(value, (_, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner), 2)
  process.stdout.write(`${text}\n`)
}

export function printTable(head: readonly string[], rows: readonly (readonly (string | number)[])[]): void {
  const table = new Table({
    head: [...head],
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 2 },
    // Columns by spaces only: easy to read, easy to cut.
    chars: {
      top: '',
      'top-mid': '',
      'top-left': '',
      'top-right': '',
      bottom: '',
      'bottom-mid': '',
      'bottom-left': '',
      'bottom-right': '',
      left: '',
      'left-mid': '',
      mid: '',
      'mid-mid': '',
      right: '',
      'right-mid': '',
      middle: '',
    },
  })
  for (const row of rows) table.push(row.map((cell) => printable(String(cell))))
  process.stdout.write(`${table.toString()}\n`)
}

/** Names that others have chosen are to tell the terminal nothing. */
function printable(text: string): string {
  return text.replace(/(?!\n)\p{Cc}/gu, (control) => `\\x${control.charCodeAt(0).toString(16).padStart(2, '0')}`)
}

export function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** An error as people read it: message and code, and for a function that threw, its stack with the lines of its source. */
export function printError(
  error: unknown,
  { json, verbose }: { readonly json: boolean; readonly verbose: boolean },
): void {
  if (json) {
    const { code, message, name } = error as PraasError
    const remote = error instanceof FunctionError ? error.remote : undefined
    process.stderr.write(`${JSON.stringify({ error: { name, code, message, ...(remote ? { remote } : {}) } })}\n`)
    return
  }
  if (!(error instanceof PraasError) && !isOfSystem(error)) {
    note(error instanceof Error ? (error.stack ?? error.message) : String(error))
    return
  }
  note(`praas: ${error.message} [${error.code}]`)
  if (error instanceof FunctionError && error.remote?.stack !== undefined) note(error.remote.stack)
  if (verbose && error.stack !== undefined) note(error.stack)
}

/** What Node throws when a call of the operating system fails, such as EADDRINUSE of an address to listen at. */
function isOfSystem(error: unknown): error is Error & { readonly code: string } {
  return error instanceof Error && 'syscall' in error && codeOf(error) !== undefined
}

export interface Progress {
  add(bytes: number): void
  end(): void
}

/** A bar on stderr while bytes move; nothing when stderr is no terminal. */
export function progressBar(what: string, totalBytes: number | undefined): Progress {
  if (!process.stderr.isTTY) return { add: () => undefined, end: () => undefined }
  const total = totalBytes ?? 0
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: total > 0 ? `${what} {bar} {percentage}%  {moved} of {size}` : `${what} {moved}`,
    },
    Presets.shades_classic,
  )
  let moved = 0
  bar.start(total, 0, { moved: formatSize(0), size: formatSize(total) })
  return {
    add: (bytes) => {
      moved += bytes
      bar.update(moved, { moved: formatSize(moved) })
    },
    end: () => bar.stop(),
  }
}

export interface Steps {
  /** So many more will come. */
  expect(steps: number): void
  /** One has ended. */
  step(what: string): void
  end(): void
}

/** A bar on stderr while steps are taken; nothing when stderr is no terminal. */
export function stepsBar(): Steps {
  if (!process.stderr.isTTY) return { expect: () => undefined, step: () => undefined, end: () => undefined }
  const bar = new SingleBar(
    {
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
      format: '{bar} {percentage}%  {eta_formatted} left  {what}',
    },
    Presets.shades_classic,
  )
  let total = 0
  bar.start(0, 0, { what: 'starting' })
  return {
    expect: (steps) => bar.setTotal((total += steps)),
    step: (what) => bar.increment(1, { what }),
    end: () => bar.stop(),
  }
}

/** A line on stderr while something of unknown length goes on. */
export async function during<Result>(what: string, work: Promise<Result>): Promise<Result> {
  if (!process.stderr.isTTY) return work
  const bar = new SingleBar({
    stream: process.stderr,
    clearOnComplete: true,
    hideCursor: true,
    format: `${what} {duration_formatted}`,
  })
  bar.start(1, 0)
  try {
    return await work
  } finally {
    bar.stop()
  }
}
