/**
 * Keeps the meaning of `import.meta.url`, `import.meta.dirname`, `import.meta.filename`, `__dirname` and `__filename` in a
 * bundle: each stays what it is in the source file, wherever the bundle lies. Applications find their data files by them.
 */
import { readFile } from 'node:fs/promises'
import { dirname, extname } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { Loader, Plugin } from 'esbuild'

/** For esbuild's `define`: replaced by constants that `moduleConstants` puts into the module. Only free names are. */
export const sourceLocations: Record<string, string> = {
  'import.meta.url': 'praasModuleUrl',
  'import.meta.dirname': 'praasModuleDirname',
  'import.meta.filename': 'praasModuleFilename',
  __dirname: 'praasModuleDirname',
  __filename: 'praasModuleFilename',
}

const loaders: Readonly<Record<string, Loader>> = {
  '.js': 'js',
  '.mjs': 'js',
  '.cjs': 'js',
  '.jsx': 'jsx',
  '.ts': 'ts',
  '.mts': 'ts',
  '.cts': 'ts',
  '.tsx': 'tsx',
}

export function moduleConstants(): Plugin {
  return {
    name: 'praas-source-locations',
    setup(build) {
      build.onLoad({ filter: /\.[cm]?[jt]sx?$/, namespace: 'file' }, async ({ path }) => {
        const source = await readFile(path, 'utf8')
        if (!/import\.meta|__dirname|__filename/.test(source)) return undefined
        return { contents: withConstants(source, path), loader: loaders[extname(path)] ?? 'js' }
      })
    },
  }
}

/** The constants go onto the first line, so that source maps keep all line numbers. */
function withConstants(source: string, path: string): string {
  // `var`: a function of the module may be called before its top level has run, in a cycle of imports.
  const constants = Object.entries({
    praasModuleUrl: pathToFileURL(path).href,
    praasModuleDirname: dirname(path),
    praasModuleFilename: path,
  })
    .map(([name, value]) => `var ${name} = ${JSON.stringify(value)};`)
    .join(' ')
  // A hashbang has to stay first; it is turned into nothing but its line end.
  return `${constants} ${source.replace(/^#!.*/, '')}`
}
