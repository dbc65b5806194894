/** Applications with functions that nobody calls beside those that are measured. */
import { join } from 'node:path'
import { writeFileSync } from 'node:fs'
import type { NativeFunctionOptions } from '../client/deploy_options.js'
import { maxFunctions } from '../limits.js'
import { compiledModule } from '../package.js'

/** What a process has room for beside the functions that are called. */
export const maxIdleFunctions = maxFunctions - 4

const nameOf = (index: number): string => `idle${index}`

/** The module of benchmark functions with `count` more. @returns its path, in `folder` if it had to be written */
export function moduleWithIdle(count: number, folder: string): string {
  const module = compiledModule('bench/functions.js')
  if (count === 0) return module
  const idle = Array.from({ length: count }, (_, index) => `export const ${nameOf(index)} = (input) => input\n`)
  const path = join(folder, `functions-${count}.mjs`)
  writeFileSync(path, `export * from ${JSON.stringify(module)}\n${idle.join('')}`)
  return path
}

/**
 * The native benchmark functions, and `count` more names of one of them.
 *
 * Not the raw one: workers that have any map payloads read-only, which costs those of the C API, too.
 */
export function nativeWithIdle(count: number): Record<string, NativeFunctionOptions> {
  const idle = Array.from({ length: count }, (_, index) => [nameOf(index), { symbol: 'null' }] as const)
  return { null: {}, touch: {}, discard: {}, measure_null: {}, ...Object.fromEntries(idle) }
}
