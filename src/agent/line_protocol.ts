/**
 * The text protocol between an agent and the process hosts it starts: lines `verb key=value key=value…`, values encoded by
 * encodeURIComponent. native/protocol/agent_line.h is the other side.
 */
import { PraasError } from '../errors.js'

export const maxLineBytes = 1 << 20

export interface Line {
  readonly verb: string
  readonly values: Readonly<Record<string, string>>
}

/** One line with its newline. Fields that are undefined are left out. */
export function formatLine(
  verb: string,
  values: Readonly<Record<string, string | number | bigint | undefined>> = {},
): string {
  const fields = Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}=${encodeURIComponent(String(value))}`)
  return `${verb}${fields.join('')}\n`
}

/** @throws {PraasError} `ERR_INTERNAL` for anything else than a verb and pairs with correct escapes */
export function parseLine(text: string): Line {
  const [verb = '', ...pairs] = text.split(' ')
  if (!/^[a-z]{1,32}$/.test(verb)) throw malformed(text, 'no verb')
  const values: Record<string, string> = {}
  for (const pair of pairs) {
    if (pair === '') continue
    const equals = pair.indexOf('=')
    const key = pair.slice(0, equals)
    if (equals < 1 || !/^[A-Za-z]{1,32}$/.test(key)) throw malformed(text, 'expected key=value')
    if (Object.hasOwn(values, key)) throw malformed(text, `${key} is given twice`)
    values[key] = decode(pair.slice(equals + 1), text)
  }
  return { verb, values }
}

function decode(value: string, line: string): string {
  try {
    return decodeURIComponent(value)
  } catch {
    throw malformed(line, 'bad %-escape')
  }
}

function malformed(line: string, why: string): PraasError {
  return new PraasError(
    'ERR_INTERNAL',
    `malformed line from a process host (${why}): ${JSON.stringify(line.slice(0, 200))}`,
  )
}

/** Cuts what a pipe delivers into lines. */
export class LineSplitter {
  readonly #decoder = new TextDecoder()
  #pending = ''

  /** @throws {PraasError} `ERR_INTERNAL` when a line gets longer than any is meant to be */
  add(bytes: Uint8Array): string[] {
    this.#pending += this.#decoder.decode(bytes, { stream: true })
    const lines = this.#pending.split('\n')
    this.#pending = lines.pop() ?? ''
    if (this.#pending.length > maxLineBytes) throw malformed(this.#pending, `longer than ${maxLineBytes}`)
    return lines
  }
}
