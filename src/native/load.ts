/** Finds and loads the addon: a prebuilt one for this platform, else the local build. */
import { existsSync, readdirSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import bindings from 'bindings'
import { messageOf, PraasError } from '../errors.js'
import { packageRoot } from '../package.js'
import type { NativeBinding } from './binding.js'

export interface LoadedAddon {
  readonly binding: NativeBinding
  /** The `.node` file. */
  readonly path: string
}

interface Attempt {
  readonly path: string
  readonly error: string
}

/**
 * Loads the addon PRAAS_ADDON names, else from `root`: `prebuilds/PLATFORM-ARCH[-musl]/praas.node` first, then what
 * `npm run build:native` made.
 *
 * @throws {PraasError} `ERR_ADDON_LOAD`: every path that was tried with its own error, and what to do.
 */
export function loadAddon(root: string = packageRoot): LoadedAddon {
  const attempts: Attempt[] = []
  const require = createRequire(join(root, 'package.json'))
  const named = process.env['PRAAS_ADDON']
  if (named !== undefined) {
    try {
      return { binding: require(named) as NativeBinding, path: named }
    } catch (error) {
      throw new PraasError('ERR_ADDON_LOAD', `cannot load the native addon PRAAS_ADDON names: ${firstLine(error)}`)
    }
  }
  for (const path of prebuiltPaths(root)) {
    try {
      return { binding: require(path) as NativeBinding, path }
    } catch (error) {
      attempts.push({ path, error: firstLine(error) })
    }
  }
  try {
    // `module_root` because it otherwise guesses from the stack; `build/Debug` would win over `build/Release` unasked.
    const options = { bindings: 'praas.node', module_root: root, path: true, try: localBuilds }
    const path = (bindings as unknown as (found: typeof options) => string)(options)
    return { binding: require(path) as NativeBinding, path }
  } catch (error) {
    for (const parts of localBuilds) {
      const path = join(
        ...parts.map((part) => (part === 'module_root' ? root : part === 'bindings' ? 'praas.node' : part)),
      )
      attempts.push({ path, error: existsSync(path) ? firstLine(error) : 'no such file' })
    }
  }
  const tried = attempts.map(({ path, error }) => `  ${path}: ${error}`).join('\n')
  throw new PraasError('ERR_ADDON_LOAD', `cannot load the native addon; tried\n${tried}\n${remedy(attempts)}`)
}

/** The process host executable: beside the addon, or where PRAAS_HOST says. */
export function hostExecutable(addonPath: string): string {
  return process.env['PRAAS_HOST'] ?? join(dirname(addonPath), 'praas-host')
}

/** The executable that runs native functions: beside the addon, or where PRAAS_NATIVE_WORKER says. */
export function nativeWorkerExecutable(addonPath: string): string {
  return process.env['PRAAS_NATIVE_WORKER'] ?? join(dirname(addonPath), 'praas-worker')
}

const localBuilds = [
  ['module_root', 'build', 'Release', 'bindings'],
  ['module_root', 'build', 'Debug', 'bindings'],
]

function prebuiltPaths(root: string): string[] {
  const folder = join(root, 'prebuilds')
  if (!existsSync(folder)) return []
  const platform = `${process.platform}-${process.arch}`
  const names = isMusl() ? [`${platform}-musl`] : [platform, `${platform}-glibc`]
  const present = readdirSync(folder)
  return names.filter((name) => present.includes(name)).map((name) => join(folder, name, 'praas.node'))
}

function isMusl(): boolean {
  const report = process.report?.getReport() as { header?: { glibcVersionRuntime?: string } } | undefined
  return process.platform === 'linux' && report?.header?.glibcVersionRuntime === undefined
}

function remedy(attempts: readonly Attempt[]): string {
  if (process.platform !== 'linux') return `praas runs on Linux; this is ${process.platform}.`
  if (attempts.some(({ error }) => /GLIBC(XX)?_/.test(error))) {
    return 'The system libraries are older than the prebuilt addon needs: build it here with `npm run build:native` in the package.'
  }
  return 'Build it with `npm run build:native` in the package (needs g++ with C++20, make and python3).'
}

function firstLine(error: unknown): string {
  return messageOf(error).split('\n')[0] ?? ''
}
