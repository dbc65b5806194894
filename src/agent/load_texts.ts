/** What the workers of a process are told to load: JSON for Node workers, a line per function for native ones. */
import { dirname } from 'node:path'
import type { LoadedApp } from '../app.js'
import type { Application } from '../deploy/application.js'
import type { NativeFunction } from '../deploy/native_functions.js'
import { ArgumentError } from '../errors.js'
import { formatSize } from '../units.js'
import { formatLine, maxLineBytes } from './line_protocol.js'

export interface LoadTexts {
  /** src/worker/main.ts reads it; empty without TypeScript. */
  readonly app: string
  /** native/function/spec.h reads it; empty without native functions. */
  readonly native: string
}

export interface LoadOptions extends Pick<LoadedApp, 'control' | 'checkViews'> {
  /** Largest payload of the process in one piece. */
  readonly maxContiguousBytes: number
}

/** Largest result of a raw function that names none, where the process allows it in one piece. */
const defaultMaxOutputBytes = 2 ** 20
/** Leaves room for everything else in the line that assigns the process. */
const maxTextBytes = maxLineBytes - 64 * 1024

/** @throws {ArgumentError} for results that cannot be as large in this process, and for too many long names */
export function loadTexts(app: Application, options: LoadOptions): LoadTexts {
  const texts = {
    app: appText(app, options),
    native: app.functions
      .map((each) => functionLine(each, options.maxContiguousBytes))
      .join('')
      .trimEnd(),
  }
  // Each travels as one value, encoded once more.
  const bytes = encodeURIComponent(texts.app).length + encodeURIComponent(texts.native).length
  if (bytes > maxTextBytes) {
    throw new ArgumentError(
      `names and paths of the ${app.functions.length} native functions take ${bytes} bytes, and ${maxTextBytes} are ` +
        `possible; deploy fewer of them with \`functions\`, or under shorter names`,
    )
  }
  return texts
}

function appText({ name, entry, bundle, functions }: Application, { control, checkViews }: LoadOptions): string {
  if (!bundle) return ''
  const loaded: LoadedApp = {
    name,
    bundle: bundle.path,
    root: dirname(entry),
    entry,
    hash: bundle.hash,
    native: functions.map((each) => ({ name: each.name, flags: each.flags })),
    control,
    checkViews,
  }
  return JSON.stringify(loaded)
}

function functionLine(given: NativeFunction, maxContiguousBytes: number): string {
  const { name, symbol, path, abi, flags } = given
  const { maxOutputBytes = Math.min(defaultMaxOutputBytes, maxContiguousBytes) } = given
  if (maxOutputBytes > maxContiguousBytes) {
    throw new ArgumentError(
      `function ${name} has maxOutput ${formatSize(maxOutputBytes)}, and the process takes ` +
        `${formatSize(maxContiguousBytes)} in one piece; create it with a larger maxContiguous`,
    )
  }
  return formatLine('function', {
    name,
    symbol,
    library: path,
    abi: abi === 'praas' ? 'adapter' : abi,
    maxOutput: abi === 'raw' ? maxOutputBytes : undefined,
    flags,
  })
}
