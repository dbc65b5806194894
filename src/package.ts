/** Where this package lies on disk, from its sources as well as from its build. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The folder of package.json: the parent of src/ and of dist/. */
export const packageRoot = dirname(dirname(fileURLToPath(import.meta.url)))

/** A compiled module of this package. Other OS processes run the build even when this one runs the sources. */
export function compiledModule(path: string): string {
  return join(packageRoot, 'dist', path)
}

let version: string | undefined

export function packageVersion(): string {
  version ??= (JSON.parse(readFileSync(join(packageRoot, 'package.json'), 'utf8')) as { version: string }).version
  return version
}
