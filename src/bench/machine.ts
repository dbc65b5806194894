/** Where and with what figures were measured. */
import { availableParallelism, cpus, release, totalmem } from 'node:os'
import { capabilities } from '../capabilities.js'
import { PraasError } from '../errors.js'
import type { Capabilities } from '../native/binding.js'

export interface Machine {
  readonly cpu: string
  /** That this OS process may use. */
  readonly cores: number
  readonly memoryBytes: number
  readonly kernel: string
  readonly date: string
  /** Whether client, host and worker have a core each. */
  readonly coreEach: boolean
}

export interface Versions {
  readonly praas: string
  readonly node: string
}

/** Client, host and worker. */
const parties = 3

export function machine(): Machine {
  const cores = availableParallelism()
  return {
    cpu: cpus()[0]?.model.trim() || 'unknown',
    cores,
    memoryBytes: totalmem(),
    kernel: release(),
    date: new Date().toISOString(),
    coreEach: cores >= parties,
  }
}

export function versions(): Versions {
  return { praas: capabilities().version, node: process.version }
}

/** @throws {PraasError} `ERR_UNSUPPORTED` for a build whose figures say nothing */
export function refuseDebugBuild({ debug, version }: Capabilities): void {
  if (!debug) return
  throw new PraasError(
    'ERR_UNSUPPORTED',
    `the native addon (${version}) is a debug build, whose figures say nothing; npm run build:native makes a release build`,
  )
}
