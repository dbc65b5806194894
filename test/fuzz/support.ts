/** What the targets in TypeScript have in common. Each exports `fuzz`, which throws when something does not hold. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { loadTexts } from '../../src/agent/load_texts.js'
import { parseLine } from '../../src/agent/line_protocol.js'
import type { NativeFunction } from '../../src/deploy/native_functions.js'
import { errorCodes, PraasError, type ErrorCode } from '../../src/errors.js'
import { isName, maxFunctions } from '../../src/limits.js'

/** Lends a folder of files that goes with the call. */
export async function withFiles<Result>(
  files: Readonly<Record<string, string | Uint8Array>>,
  use: (folder: string) => Result | Promise<Result>,
): Promise<Result> {
  const folder = mkdtempSync(join(tmpdir(), 'praas-fuzz-'))
  try {
    for (const [name, contents] of Object.entries(files)) {
      mkdirSync(dirname(join(folder, name)), { recursive: true })
      writeFileSync(join(folder, name), contents)
    }
    return await use(folder)
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** What `call` gives, or undefined when it refuses the input as documented: with an error of one of these codes. */
export async function unlessRefused<Result>(
  codes: readonly ErrorCode[],
  call: () => Result | Promise<Result>,
): Promise<Result | undefined> {
  try {
    return await call()
  } catch (error) {
    if (!(error instanceof PraasError) || !codes.includes(error.code as ErrorCode)) throw error
    assert.ok(errorCodes.has(error.code as ErrorCode))
    // Whoever deployed reads it.
    assert.ok(error.message.length < 100_000, `a message of ${error.message.length} characters`)
    return undefined
  }
}

/** What native workers are told of the functions has to say, to whoever takes it apart, what the functions are. */
export function checkHandedOn(functions: readonly NativeFunction[]): void {
  assert.ok(functions.length > 0 && functions.length <= maxFunctions)
  assert.equal(new Set(functions.map(({ name }) => name)).size, functions.length)
  const app = { name: 'app', entry: '/app.json', hash: '0', bundle: undefined, functions }
  const { native } = loadTexts(app, { control: '', checkViews: false, maxContiguousBytes: 2 ** 26 })
  const lines = native.split('\n').map(parseLine)
  assert.equal(lines.length, functions.length)
  for (const [index, { name, symbol, path, flags }] of functions.entries()) {
    assert.ok(isName(name))
    const { verb, values } = lines[index] ?? { verb: '', values: {} }
    assert.equal(verb, 'function')
    const { name: toldName, symbol: toldSymbol, library, flags: toldFlags } = values
    assert.deepEqual([toldName, toldSymbol, library, toldFlags], [name, symbol, path, String(flags)])
  }
}
