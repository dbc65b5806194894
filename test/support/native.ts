/** The function libraries of test/fixtures/native, and clusters that serve them. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import type { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import type { WorkerKind } from '../../src/control.js'
import { messageOf } from '../../src/errors.js'
import { packageRoot } from '../../src/package.js'
import type { TestCluster } from './cluster.js'

/** Outside of what node-gyp writes to, and gone with the build. */
const buildFolder = join(packageRoot, 'build', 'fixtures')

/**
 * Builds the libraries unless they are up to date. Test files run at the same time, so one of them builds and the others
 * wait; the lock goes with its holder, however that ends.
 */
function build(): void {
  mkdirSync(buildFolder, { recursive: true })
  const source = join(packageRoot, 'test', 'fixtures', 'native')
  const configure = ['cmake', '-S', source, '-B', buildFolder, `-Dpraas_DIR=${join(packageRoot, 'cmake')}`]
  const commands = `"$@" && cmake --build '${buildFolder}' --parallel 2`
  try {
    execFileSync('flock', [join(buildFolder, 'lock'), 'sh', '-c', commands, 'sh', ...configure], { stdio: 'pipe' })
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: Buffer | string; stderr?: Buffer | string }
    const said = `${String(stdout)}${String(stderr)}`
    throw new Error(`the function libraries of the tests cannot be built: ${messageOf(error)}\n${said}`, {
      cause: error,
    })
  }
}
build()

const file = (name: string): string => join(buildFolder, name)

/** Paths of the libraries, and of PraaS' function tables that name functions in them. */
export const libraries = {
  c: file('libc_functions.so'),
  cpp: file('libcpp_functions.so'),
  rfaas: file('librfaas_functions.so'),
  praas: file('libpraas_functions.so'),
} as const
export const tables = {
  absolute: file('functions.json'),
  relative: file('functions_relative.json'),
  python: file('functions_python.json'),
} as const

/** Why the functions that use cereal were not compiled; undefined when they were. */
export const withoutCereal = readFileSync(libraries.praas).includes('cereal_add\0')
  ? undefined
  : 'libcereal-dev is not installed'
if (withoutCereal !== undefined) console.log(`functions that use cereal are not tested: ${withoutCereal}`)

export const transports = ['shm', 'tcp'] as const
export type Transport = (typeof transports)[number]

/** Another client of a cluster, by one transport. */
export function connectBy(transport: Transport, { directory }: TestCluster): Promise<Cluster> {
  return connect(undefined, { runtimeDir: directory.path, transport })
}

/** A connection to a process that is there, for one test, by one transport. */
export async function processBy(transport: Transport, started: TestCluster, id: string): Promise<Process> {
  const cluster = await connectBy(transport, started)
  onTestFinished(() => cluster.close())
  const process = await cluster.process(id, { create: false })
  expect(process.transport).toBe(transport)
  return process
}

export const bytesOf = (text: string): Uint8Array => Buffer.from(text)
export const textOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString()

/** Calls a function whose input and result are text. */
export async function say(process: Process, functionName: string, input = '', timeoutMs?: number): Promise<string> {
  return textOf(await process.invoke(functionName, bytesOf(input), timeoutMs === undefined ? {} : { timeoutMs }))
}

/** As the raw functions of the fixtures take numbers. */
export function uint32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

/** Bytes that differ from their neighbours and from page to page. */
export function pattern(byteLength: number): Uint8Array {
  const bytes = new Uint8Array(byteLength)
  for (let index = 0; index < byteLength; index++) bytes[index] = index * 31 + (index >> 12)
  return bytes
}

/** Of the workers of one kind that are ready and not leased, in order. */
export async function workerPids(process: Process, kind: WorkerKind = 'native'): Promise<number[]> {
  const { workers } = await process.describe()
  return workers
    .filter((worker) => worker.kind === kind && worker.state === 'ready' && !worker.leased)
    .map(({ pid }) => pid)
}

/** Resolves with their pids when there are as many ready workers of a kind. */
export async function untilReady(process: Process, count: number, kind: WorkerKind = 'native'): Promise<number[]> {
  let pids: number[] = []
  await expect
    .poll(async () => (pids = await workerPids(process, kind)).length, { timeout: 50_000, interval: 20 })
    .toBe(count)
  return pids
}
