import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { packageRoot } from '../../src/package.js'

/** Compiles `source`, native functions beside this file, to a shared object in `folder`; its path. */
export function compileLibrary(source: string, folder: string): string {
  const path = join(folder, source.replace(/^(.*)\.c$/, 'lib$1.so'))
  const include = join(packageRoot, 'include')
  const options = ['-shared', '-fPIC', '-O1', '-I', include]
  execFileSync('cc', [...options, '-o', path, join(packageRoot, 'test', 'faults', source)])
  return path
}
