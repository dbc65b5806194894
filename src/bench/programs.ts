/** The programs and libraries the native build makes for the suite. They lie beside the addon. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { PraasError } from '../errors.js'
import { addonFolder } from '../native/binding.js'

export type BenchProgram = 'praas-floor' | 'praas-bench-client' | 'praas-bench-cold' | 'praas-bench-functions.so'

/** @throws {PraasError} `ERR_UNSUPPORTED` when the build did not make it */
export function benchProgram(name: BenchProgram): string {
  const path = join(addonFolder(), name)
  if (existsSync(path)) return path
  throw new PraasError('ERR_UNSUPPORTED', `there is no ${path}; npm run build:native makes it`)
}
