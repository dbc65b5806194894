/** Values of all codecs as text on a command line. */
import { typedArrays, type CodecName } from '../codecs.js'
import { ArgumentError, messageOf } from '../errors.js'

/** What a function or key takes, from text: the text itself for bytes, JSON for everything else. */
export function valueFromText(text: string, codec: CodecName): unknown {
  if (codec === 'raw') return Buffer.from(text)
  const value = parseJson(text, codec)
  const elements = typedArrays.find(({ constructor }) => constructor.name === codec)?.constructor
  if (!elements) return value
  if (!Array.isArray(value)) throw new ArgumentError(`it takes a ${codec}; expected a JSON array of numbers`)
  const big = codec.startsWith('Big')
  const items = value.map((item) => (big ? BigInt(item as number | string) : Number(item)))
  const from = elements as unknown as { from(items: readonly (number | bigint)[]): unknown }
  return from.from(items)
}

function parseJson(text: string, codec: CodecName): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch (error) {
    throw new ArgumentError(
      `it takes ${codec}, and the data is no JSON: ${messageOf(error)}; strings need quotes: '"text"'`,
    )
  }
}

/** Bytes as they are, everything else as JSON. */
export function printValue(value: unknown): void {
  if (value === undefined) return
  if (value instanceof Uint8Array) return printBytes(value)
  const plain = ArrayBuffer.isView(value) ? Array.from(value as unknown as Iterable<unknown>) : value
  const text = JSON.stringify(plain, (_, inner: unknown) => (typeof inner === 'bigint' ? String(inner) : inner), 2)
  process.stdout.write(`${text}\n`)
}

function printBytes(bytes: Uint8Array): void {
  if (process.stdout.isTTY && !isText(bytes)) {
    throw new ArgumentError(
      `the result is ${bytes.byteLength} bytes of binary data; write it to a file with --out, or pipe it`,
    )
  }
  process.stdout.write(bytes)
  if (process.stdout.isTTY && bytes.at(-1) !== 0x0a) process.stdout.write('\n')
}

function isText(bytes: Uint8Array): boolean {
  try {
    // Control characters could do anything to a terminal.
    // eslint-disable-next-line no-control-regex
    return !/[\0-\x08\x0e-\x1f\x7f]/.test(new TextDecoder('utf-8', { fatal: true }).decode(bytes))
  } catch {
    return false
  }
}
