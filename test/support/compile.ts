/** Function libraries for tests, made by the compiler of this machine. */
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { packageRoot } from '../../src/package.js'

export interface CompileOptions {
  /** `c` or `c++`. Default: `c`. */
  readonly language?: 'c' | 'c++'
  /** For compiler and linker. */
  readonly flags?: readonly string[]
}

/** Writes the shared object to `path`. */
export function compileLibrary(
  path: string,
  source: string,
  { language = 'c', flags = [] }: CompileOptions = {},
): void {
  const include = join(packageRoot, 'include')
  const parameters = ['-x', language, '-shared', '-fPIC', '-I', include, '-o', path, '-', ...flags]
  execFileSync(language === 'c' ? 'gcc' : 'g++', parameters, { input: source, stdio: ['pipe', 'inherit', 'inherit'] })
}

/** A function of rFaaS' calling convention that returns `returned` bytes without writing any. */
export function rawFunction(name: string, returned = 0): string {
  return `#include <stdint.h>\nuint32_t ${name}(void* args, uint32_t size, void* res) { return ${returned}; }\n`
}
