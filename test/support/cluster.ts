/** Real clusters for end-to-end tests: agent here, hosts and workers as children, everything in a folder of their own. */
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished } from 'vitest'
import type { LocalOptions } from '../../src/agent/cluster_local.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { Cluster } from '../../src/client/cluster.js'
import { codeOf } from '../../src/errors.js'
import type * as fixture from '../fixtures/app.js'
import { native } from '../../src/native/binding.js'
import { makeTemporaryFolder } from './temporary.js'

export const fixtureApp = fileURLToPath(new URL('../fixtures/app.ts', import.meta.url))
export type FixtureApp = typeof fixture

export interface TestCluster {
  readonly cluster: Cluster
  readonly directory: RuntimeDirectory
  /** Closes it and checks that nothing is left of its processes. */
  close(): Promise<void>
}

const smallProcess = { memory: '256 MiB', pool: '256 MiB' } as const

export async function startCluster(options: LocalOptions = {}): Promise<TestCluster> {
  const runtimeDir = options.runtimeDir ?? makeTemporaryFolder()
  const cluster = await Cluster.local({ app: fixtureApp, runtimeDir, ...smallProcess, ...options })
  const directory = RuntimeDirectory.open(runtimeDir)
  const ids = new Set<string>()
  const close = async (): Promise<void> => {
    if (!cluster.closed) for (const { id } of await cluster.processes()) ids.add(id)
    await cluster.close()
    if (options.keep !== true) for (const id of ids) expectNothingLeft(directory, id)
    if (options.runtimeDir !== undefined) return
    expect(readdirSync(join(runtimeDir, 'agents'))).toEqual([])
    rmSync(runtimeDir, { recursive: true, force: true })
  }
  return { cluster, directory, close }
}

/** A cluster for one test. */
export async function clusterForTest(options: LocalOptions = {}): Promise<TestCluster> {
  const started = await startCluster(options)
  onTestFinished(started.close)
  return started
}

export function expectNothingLeft(directory: RuntimeDirectory, id: string): void {
  const { segment, queue, folder } = directory.processPaths(id)
  expect(readdirSync('/dev/shm')).not.toContain(segment.slice(1))
  // The file system of queues is mounted on few machines; removing one tells as well.
  for (const name of [queue, `${queue}-native`]) {
    expect(native().unlinkMessageQueue(name), `message queue ${name} of ${id}`).toBe(false)
  }
  expect(existsSync(folder)).toBe(false)
}

/** Resolves when no process of this pid runs any more; a zombie does not run. */
export async function untilGone(pid: number): Promise<void> {
  await expect.poll(() => isRunning(pid), { timeout: 30_000 }).toBe(false)
}

export function isRunning(pid: number): boolean {
  try {
    const state = /^\d+ \(.*\) (\S)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
    return state !== 'Z' && state !== 'X'
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return false
    throw error
  }
}

/** What a promise rejects with. */
export async function failureOf(promise: Promise<unknown>): Promise<Error & { code: string }> {
  try {
    await promise
  } catch (error) {
    return error as Error & { code: string }
  }
  throw new Error('it did not fail')
}
