/**
 * Packages that cannot be bundled because they contain native addons, or shall not be. Their imports become absolute paths
 * of the files that the application itself would load, so the bundle may lie anywhere.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { isBuiltin } from 'node:module'
import { dirname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { OnResolveArgs, OnResolveResult, Plugin } from 'esbuild'
import { messageOf } from '../errors.js'

/** Tells our own resolution from that of the application's imports. */
const resolving = Symbol('resolving')

export function externalPackages(named: readonly string[]): Plugin {
  return {
    name: 'praas-external-packages',
    setup(build) {
      build.onResolve({ filter: /\.node$/ }, (args) => nativeFile(args))
      build.onLoad({ filter: /.*/, namespace: 'praas-native-file' }, ({ path }) => ({
        // An ES module cannot import an addon; `require` can.
        contents: `module.exports = require(${JSON.stringify(path)})`,
        loader: 'js',
      }))
      build.onResolve({ filter: /^[^./]/ }, async (args): Promise<OnResolveResult | undefined> => {
        const { path, importer, kind, resolveDir, namespace } = args
        if (args.pluginData === resolving || isBuiltin(path) || kind === 'entry-point') return undefined
        if (path.startsWith('file:') || namespace !== 'file') return undefined
        const resolved = await build.resolve(path, { importer, kind, resolveDir, namespace, pluginData: resolving })
        // Left to esbuild, whose message names importer and line.
        if (resolved.errors.length > 0 || resolved.external || resolved.namespace !== 'file') return undefined
        const isNamed = named.includes(packageName(path))
        if (!isNamed && !hasNativeParts(resolved.path)) return undefined
        return { path: importable(resolved.path, kind), external: true }
      })
    },
  }
}

/** `import` takes URLs, `require` paths. */
function importable(path: string, kind: OnResolveArgs['kind']): string {
  return kind === 'require-call' || kind === 'require-resolve' ? path : pathToFileURL(path).href
}

function nativeFile({ path, resolveDir, namespace }: OnResolveArgs): OnResolveResult | undefined {
  if (namespace === 'praas-native-file') return { path, external: true }
  const absolute = join(resolveDir, path)
  if (!path.startsWith('.') || !existsSync(absolute)) return undefined
  return { path: absolute, namespace: 'praas-native-file' }
}

/** `@scope/name/deep` → `@scope/name`. */
function packageName(specifier: string): string {
  const parts = specifier.split('/')
  return specifier.startsWith('@') ? parts.slice(0, 2).join('/') : (parts[0] ?? specifier)
}

const nativeHelpers = [
  'bindings',
  'node-gyp-build',
  'node-pre-gyp',
  '@mapbox/node-pre-gyp',
  'prebuild-install',
  'node-addon-api',
  'nan',
  'node-gyp-build-optional-packages',
]

interface PackageManifest {
  readonly gypfile?: boolean
  readonly binary?: unknown
  readonly dependencies?: Readonly<Record<string, string>>
  readonly optionalDependencies?: Readonly<Record<string, string>>
}

const known = new Map<string, boolean>()

/** Whether the package a file belongs to comes with native code, by its manifest and the files in it. */
export function hasNativeParts(file: string): boolean {
  if (file.endsWith('.node')) return true
  const folder = packageFolder(file)
  if (folder === undefined) return false
  let native = known.get(folder)
  if (native === undefined) {
    native = looksNative(folder)
    known.set(folder, native)
  }
  return native
}

function looksNative(folder: string): boolean {
  if (existsSync(join(folder, 'binding.gyp')) || existsSync(join(folder, 'prebuilds'))) return true
  if (readdirSync(folder).some((name) => name.endsWith('.node'))) return true
  const manifest = readManifest(join(folder, 'package.json'))
  if (manifest.gypfile === true || manifest.binary !== undefined) return true
  if (Object.keys(manifest.dependencies ?? {}).some((name) => nativeHelpers.includes(name))) return true
  // One optional package per platform: how sharp, esbuild, swc and others bring their binaries.
  return Object.keys(manifest.optionalDependencies ?? {}).some((name) => /(linux|darwin|win32)-(x64|arm64)/.test(name))
}

/** The innermost folder of node_modules the file lies in; undefined for the application's own files. */
function packageFolder(file: string): string | undefined {
  if (!file.includes('/node_modules/')) return undefined
  for (let folder = dirname(file); folder !== dirname(folder); folder = dirname(folder)) {
    if (existsSync(join(folder, 'package.json')) && isPackageRoot(folder)) return folder
  }
  return undefined
}

/** Folders inside packages may have a package.json of their own that only says `"type"`. */
function isPackageRoot(folder: string): boolean {
  const parent = dirname(folder)
  return parent.endsWith('/node_modules') || /\/node_modules\/@[^/]+$/.test(parent)
}

function readManifest(path: string): PackageManifest {
  try {
    return (JSON.parse(readFileSync(path, 'utf8')) ?? {}) as PackageManifest
  } catch (error) {
    throw new Error(`${path}: ${messageOf(error)}`, { cause: error })
  }
}
