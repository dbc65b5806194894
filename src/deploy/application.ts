/** Applications: a module in TypeScript, native functions, or both. */
import type { AppDescription, DeployRequest } from '../control.js'
import { ArgumentError, DeployError } from '../errors.js'
import { bundleApp, type Bundle } from './bundle.js'
import { contentHash } from './content_store.js'
import { appName, entryKind } from './entry.js'
import { readFunctionTable } from './function_table.js'
import { chooseFunctions, offerOfTable, offersOfLibrary, type NativeFunction } from './native_functions.js'
import { openLibrary, type NativeLibrary } from './native_library.js'

export interface Application {
  readonly name: string
  readonly entry: string
  readonly hash: string
  /** Undefined without TypeScript. */
  readonly bundle: Bundle | undefined
  /** Sorted by name. */
  readonly functions: readonly NativeFunction[]
}

/**
 * Bundles the module of an application and opens its libraries.
 *
 * @param folder  Where bundles and copies of libraries are kept.
 * @throws {DeployError} `ERR_DEPLOY_FAILED` · {ArgumentError} when there is nothing to deploy
 */
export async function loadApplication(request: DeployRequest, folder: string): Promise<Application> {
  const { native = [], functions = {}, external } = request
  const named = Object.values(functions).flatMap(({ library }) => library ?? [])
  const module = request.entry !== undefined && entryKind(request.entry) === 'module' ? request.entry : undefined
  const sources = [...(request.entry === undefined || module !== undefined ? [] : [request.entry]), ...native]
  const entry = request.entry ?? sources[0] ?? named[0]
  if (entry === undefined) throw new ArgumentError('deploy: there is nothing to deploy; pass `app`, `native` or both')
  if (sources.length + named.length === 0 && request.functions) {
    throw new ArgumentError('deploy: `functions` are native ones; pass `native`, the libraries that have them')
  }
  const bundle =
    module === undefined ? undefined : await bundleApp({ entry: module, folder, ...(external && { external }) })
  const chosen = sources.length + named.length === 0 ? [] : await nativeFunctions(sources, named, request, folder)
  if (bundle) checkNames(entry, bundle, chosen)
  return {
    name: request.name ?? appName(entry),
    entry,
    hash: hashOf(bundle, chosen),
    bundle,
    functions: chosen,
  }
}

export function describeApplication({ name, entry, hash, bundle, functions }: Application): AppDescription {
  return {
    name,
    entry,
    hash,
    language: !bundle ? 'native' : functions.length === 0 ? 'typescript' : 'mixed',
    exports: [...(bundle?.exports ?? []), ...functions.map((each) => each.name)],
    bundleBytes: bundle?.byteLength ?? 0,
    native: functions.map(({ name, library, symbol, abi }) => ({ name, library, symbol, abi })),
  }
}

async function nativeFunctions(
  sources: readonly string[],
  named: readonly string[],
  request: DeployRequest,
  folder: string,
): Promise<NativeFunction[]> {
  const libraries = new Map<string, Promise<NativeLibrary>>()
  const open = (path: string): Promise<NativeLibrary> => {
    const opened = libraries.get(path) ?? openLibrary(path, folder)
    libraries.set(path, opened)
    return opened
  }
  const offers = await Promise.all(
    [...new Set([...sources, ...named])].map(async (source) =>
      entryKind(source) === 'table'
        ? Promise.all(readFunctionTable(source).map(async (entry) => offerOfTable(entry, await open(entry.library))))
        : offersOfLibrary(await open(source)),
    ),
  )
  return chooseFunctions(offers.flat(), await Promise.all(libraries.values()), request)
}

/** @throws {DeployError} when a name means two functions */
function checkNames(entry: string, bundle: Bundle, functions: readonly NativeFunction[]): void {
  const twice = functions.find(({ name }) => bundle.exports.includes(name))
  if (!twice) return
  throw new DeployError(
    'ERR_DEPLOY_FAILED',
    `function ${twice.name} is exported by ${entry} and offered by ${twice.library}; rename one of them, or choose the ` +
      `native functions and their names: functions: { NAME: { symbol: ${JSON.stringify(twice.symbol)} } }`,
  )
}

function hashOf(bundle: Bundle | undefined, functions: readonly NativeFunction[]): string {
  if (bundle && functions.length === 0) return bundle.hash
  // The same wherever it lies.
  const contents = functions.map(({ library: _library, path: _path, ...contents }) => contents)
  return contentHash(JSON.stringify([bundle?.hash, contents]))
}
