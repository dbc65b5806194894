/** Shared objects with functions: what is in them, and from where workers load them. */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import type { NativeAbi } from '../control.js'
import { codeOf, DeployError, messageOf } from '../errors.js'
import { nativeWorkerExecutablePath } from '../native/binding.js'
import { contentHash, storeContents } from './content_store.js'

export interface LibraryFunction {
  readonly name: string
  readonly abi: NativeAbi
  /** What it declares about itself, as packTraits of src/codecs.ts makes it. */
  readonly flags: number
}

/** What praas-worker says about a shared object. */
export interface LibraryFacts {
  /** Its real path. */
  readonly library: string
  /** Whether it brings the calling convention of PraaS' C++ functions. */
  readonly adapter: boolean
  /** False when it finds other files by the folder it lies in ($ORIGIN in its RUNPATH or RPATH). */
  readonly relocatable: boolean
  readonly functions: readonly LibraryFunction[]
}

export interface NativeLibrary {
  /** Path it was deployed from. */
  readonly source: string
  /** Path workers load it from. */
  readonly path: string
  /** SHA-256 of its contents, 16 hex digits. */
  readonly hash: string
  readonly adapter: boolean
  readonly functions: readonly LibraryFunction[]
}

export interface DescribeOptions {
  /** The executable that loads libraries. Default: praas-worker beside the addon. */
  readonly executable?: string
  /** Default: 10 s. */
  readonly timeoutMs?: number
}

/**
 * Makes a shared object ready for workers: a copy of it under the hash of its contents, so that building it anew neither
 * crashes workers that have it mapped nor mixes two versions in one process. A library that is not relocatable is loaded
 * from where it lies; it must not be written to while processes use it. The same goes for what a library loads itself.
 *
 * @param folder  Where copies are kept; each gets a folder named by its hash.
 * @throws {DeployError} `ERR_DEPLOY_FAILED` with what the dynamic loader says
 */
export async function openLibrary(
  source: string,
  folder: string,
  options: DescribeOptions = {},
): Promise<NativeLibrary> {
  const original = await describeLibrary(source, options)
  const contents = await read(source)
  const hash = contentHash(contents)
  if (!original.relocatable) {
    const { library: path, adapter, functions } = original
    return { source, path, hash, adapter, functions }
  }
  const name = basename(source)
  // The same contents under two names are two files.
  const target = storeContents(folder, contentHash(`${hash}/${name}`), [{ name, contents }])
  // What workers load is what counts: a build may have replaced the original since.
  const { library: path, adapter, functions } = await describeCopy(join(target, name), source, options)
  return { source, path, hash, adapter, functions }
}

/**
 * What is in a shared object. It is loaded in an OS process of its own, because loading runs its constructors.
 *
 * @throws {DeployError} `ERR_DEPLOY_FAILED`
 */
export async function describeLibrary(path: string, options: DescribeOptions = {}): Promise<LibraryFacts> {
  const { executable = nativeWorkerExecutablePath(), timeoutMs = 10_000 } = options
  const { error, stdout, stderr } = await run(executable, ['--describe', path], timeoutMs)
  if (error) throw refused(path, explain(error, executable, timeoutMs), stderr, error)
  // The library may have printed something, too.
  const line = stdout.split('\n').findLast((text) => text.startsWith('{'))
  const parsed = factsSchema.safeParse(parseJson(line ?? ''))
  if (!parsed.success) {
    throw refused(path, `${executable} says ${JSON.stringify(stdout.slice(-200))} about it`, stderr)
  }
  return parsed.data
}

async function describeCopy(copy: string, source: string, options: DescribeOptions): Promise<LibraryFacts> {
  try {
    return await describeLibrary(copy, options)
  } catch (error) {
    throw new DeployError(
      'ERR_DEPLOY_FAILED',
      `${source} can be loaded, but its copy cannot: ${messageOf(error)}\nIs it being built just now? Is the file system ` +
        `of the copy mounted noexec? (PRAAS_RUNTIME_DIR chooses another.) A library that needs files beside itself has ` +
        `to be linked with -Wl,-rpath,'$ORIGIN'; it is then loaded from where it lies.`,
      { cause: error },
    )
  }
}

const functionSchema = z.object({
  name: z.string().min(1),
  abi: z.enum(['raw', 'c', 'adapter']).transform((abi): NativeAbi => (abi === 'adapter' ? 'praas' : abi)),
  flags: z.int().min(0),
})
const factsSchema = z.object({
  library: z.string().startsWith('/'),
  adapter: z.boolean(),
  relocatable: z.boolean(),
  functions: z.array(functionSchema),
})

interface Outcome {
  readonly error: (Error & { killed?: boolean; signal?: NodeJS.Signals | null }) | undefined
  readonly stdout: string
  readonly stderr: string
}

/** Names of functions may be many, and what a library prints has no bound. */
const maxOutputBytes = 16 * 2 ** 20

function run(executable: string, parameters: readonly string[], timeoutMs: number): Promise<Outcome> {
  const { PRAAS_TOKEN: _secret, ...environment } = process.env
  const options = {
    timeout: timeoutMs,
    killSignal: 'SIGKILL',
    maxBuffer: maxOutputBytes,
    env: environment,
  } as const
  return new Promise((resolve) => {
    const child = execFile(executable, parameters, options, (error, stdout, stderr) =>
      resolve({ error: error ?? undefined, stdout, stderr }),
    )
    // A constructor that reads must not wait for the user's terminal.
    child.stdin?.end()
  })
}

function explain(error: NonNullable<Outcome['error']>, executable: string, timeoutMs: number): string {
  if (codeOf(error) === 'ENOENT' || codeOf(error) === 'EACCES') {
    return `${executable} cannot be started (${codeOf(error)}); build it with \`npm run build:native\` in the package`
  }
  if (codeOf(error) === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return 'it prints without end while it is loaded'
  if (error.killed === true)
    return `loading it took longer than ${timeoutMs} ms; does one of its constructors not return?`
  if (error.signal) return `loading it ended with ${error.signal}`
  return ''
}

/** Enough for the dynamic loader's message and a few lines of the library's own. */
const stderrTailCharacters = 2_000

function refused(path: string, why: string, stderr: string, cause?: unknown): DeployError {
  const detail = [why, stderr.trim().slice(-stderrTailCharacters)].filter((text) => text !== '').join(': ')
  return new DeployError('ERR_DEPLOY_FAILED', `cannot deploy the library ${path}: ${detail || 'no reason is known'}`, {
    cause,
  })
}

async function read(path: string): Promise<Buffer> {
  try {
    return await readFile(path)
  } catch (error) {
    throw new DeployError('ERR_DEPLOY_FAILED', `cannot read the library ${path}: ${messageOf(error)}`, { cause: error })
  }
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined // the schema refuses it
  }
}
