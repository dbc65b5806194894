/** Where and with what figures were measured. */
import { execFile } from 'node:child_process'
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { promisify } from 'node:util'
import { capabilities } from '../capabilities.js'
import { messageOf, PraasError } from '../errors.js'
import { hostExecutablePath, nativeWorkerExecutablePath, type Capabilities } from '../native/binding.js'
import type { Pinning } from './pinning.js'

export interface Machine {
  readonly cpu: string
  /** That this OS process may use. */
  readonly cores: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly date: string
  /** Whether client, host and worker have a core each. */
  readonly coreEach: boolean
  /** Where they were put; absent: wherever the scheduler likes. */
  readonly pinning?: Pinning
}

export interface Versions {
  readonly praas: string
  readonly node: string
}

/** Client, host and worker. */
const parties = 3

export function machine(pinning?: Pinning): Machine {
  const cores = availableParallelism()
  return {
    cpu: cpus()[0]?.model.trim() || 'unknown',
    cores,
    memoryBytes: totalmem(),
    kernel: release(),
    date: new Date().toISOString(),
    coreEach: (pinning ? new Set(Object.values(pinning)).size : cores) >= parties,
    ...(pinning ? { pinning } : {}),
  }
}

export function versions(): Versions {
  return { praas: capabilities().version, node: process.version }
}

/** What `praas-host` and `praas-worker` say after their version (native/base/build.h). */
const debugNote = /, debug build$/m

/** @throws {PraasError} `ERR_UNSUPPORTED` if the addon, the host or the worker is a build whose figures say nothing */
export async function refuseDebugBuilds({ debug, version }: Capabilities = capabilities()): Promise<void> {
  if (debug) throw debugBuild(`the native addon (${version})`)
  // Environment variables may name programs of another build.
  for (const program of [hostExecutablePath(), nativeWorkerExecutablePath()]) {
    if (debugNote.test(await versionOf(program))) throw debugBuild(program)
  }
}

async function versionOf(program: string): Promise<string> {
  try {
    return (await promisify(execFile)(program, ['--version'], { timeout: 10_000 })).stdout
  } catch (error) {
    throw new PraasError('ERR_UNSUPPORTED', `${program} does not tell its version: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

function debugBuild(what: string): PraasError {
  return new PraasError(
    'ERR_UNSUPPORTED',
    `${what} is a debug build, whose figures say nothing; npm run build:native makes a release build`,
  )
}
