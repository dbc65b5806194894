/** Bundles an application into one ES module that workers import. */
import { existsSync, statSync } from 'node:fs'
import { basename, dirname, extname, join } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { BuildFailure, Message, OutputFile } from 'esbuild'
import { DeployError, messageOf } from '../errors.js'
import { contentHash, storeContents } from './content_store.js'
import { withBundler } from './bundler.js'
import { externalPackages } from './external_packages.js'
import { ownPackage } from './own_package.js'
import { moduleConstants, sourceLocations } from './source_locations.js'

export interface BundleOptions {
  /** Absolute path of the entry file. */
  readonly entry: string
  /** Where bundles are kept; each gets a folder named by its hash. */
  readonly folder: string
  /** Packages that are not bundled but resolved from the application. */
  readonly external?: readonly string[]
}

export interface Bundle {
  /** Absolute path of the module. */
  readonly path: string
  /** SHA-256 of its contents, 16 hex digits. */
  readonly hash: string
  readonly byteLength: number
  /** Names the entry exports. */
  readonly exports: readonly string[]
  /** Files it was made of. */
  readonly inputs: readonly string[]
}

/**
 * Makes one ES module of the entry and everything it imports, with a source map, and writes it to a folder named by its
 * contents. What `import.meta.url`, `__dirname` and `__filename` say stays as in the sources. Packages with native addons
 * are left out and resolved from the application.
 *
 * @throws {DeployError} `ERR_DEPLOY_FAILED` naming file and line of an import that cannot be resolved, or the syntax error
 */
export async function bundleApp({ entry, folder, external = [] }: BundleOptions): Promise<Bundle> {
  if (!statSync(entry, { throwIfNoEntry: false })?.isFile()) {
    throw new DeployError('ERR_DEPLOY_FAILED', `there is no application ${entry}`)
  }
  const root = dirname(entry)
  try {
    const result = await withBundler(({ build }) =>
      build({
        entryPoints: [entry],
        absWorkingDir: root,
        outfile: join(folder, 'draft', 'app.mjs'),
        bundle: true,
        write: false,
        format: 'esm',
        platform: 'node',
        target: `node${process.versions.node}`,
        sourcemap: 'linked',
        sourcesContent: false,
        metafile: true,
        logLevel: 'silent',
        define: sourceLocations,
        // CommonJS packages call `require`, which ES modules do not have. Not imported: Node takes a millisecond for that.
        banner: {
          js: `const require = process.getBuiltinModule('node:module').createRequire(${JSON.stringify(pathToFileURL(entry).href)});`,
        },
        plugins: [ownPackage(), externalPackages(external), moduleConstants()],
      }),
    )
    const [output] = Object.values(result.metafile.outputs).filter(({ entryPoint }) => entryPoint !== undefined)
    // Not those of virtual modules, which are no files.
    const inputs = Object.keys(result.metafile.inputs)
      .map((path) => fileOf(root, path))
      .filter((path) => existsSync(path))
    return { ...writeBundle(folder, result.outputFiles), exports: output?.exports ?? [], inputs: [...new Set(inputs)] }
  } catch (error) {
    throw explain(error, root)
  }
}

/** An import may say more than a file (`./lib.js?v=2`), and a file may have such a name. */
function fileOf(root: string, input: string): string {
  let file = input
  while (/[?#]/.test(file) && !existsSync(join(root, file))) file = file.replace(/[?#][^?#]*$/, '')
  return join(root, file)
}

function writeBundle(folder: string, files: readonly OutputFile[]): Pick<Bundle, 'path' | 'hash' | 'byteLength'> {
  const code = files.find(({ path }) => extname(path) === '.mjs')
  if (!code) throw new DeployError('ERR_DEPLOY_FAILED', 'the bundler wrote nothing')
  const hash = contentHash(code.contents)
  const target = storeContents(
    folder,
    hash,
    files.map(({ path, contents }) => ({ name: basename(path), contents })),
  )
  return { path: join(target, basename(code.path)), hash, byteLength: code.contents.byteLength }
}

function explain(error: unknown, root: string): DeployError {
  if (error instanceof DeployError) return error
  const { errors } = error as Partial<BuildFailure>
  if (!Array.isArray(errors) || errors.length === 0) {
    return new DeployError('ERR_DEPLOY_FAILED', `cannot bundle the application: ${messageOf(error)}`, { cause: error })
  }
  const lines = errors.map((message) => describeMessage(message, root))
  return new DeployError('ERR_DEPLOY_FAILED', `cannot bundle the application:\n${lines.join('\n')}`, { cause: error })
}

function describeMessage({ text, location, notes }: Message, root: string): string {
  const where = location ? `${join(root, location.file)}:${location.line}:${location.column + 1}: ` : ''
  const source = location?.lineText.trim()
  const hints = notes.map((note) => `\n    ${note.text}`).join('')
  return `  ${where}${text}${source ? `\n    ${source}` : ''}${hints}`
}
