/** Keys and tokens are where they have to be and nowhere else: not in logs, arguments, environments, errors or output. */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, existsSync, lstatSync, openSync, readdirSync, readFileSync, readSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { inspect } from 'node:util'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { connect } from '../../src/client/connect.js'
import { native } from '../../src/native/binding.js'
import { fromNative } from '../../src/native/errors.js'
import { compiledModule } from '../../src/package.js'
import { mintToken, tokenVerbs } from '../../src/token.js'
import { expectNothingLeft, failureOf, fixtureApp } from '../support/cluster.js'
import { descendantsOf } from '../support/processes.js'
import { makeTemporaryFolder } from '../support/temporary.js'

const main = compiledModule('cli/main.js')
/** LeaseOp of native/protocol/frame.h. */
const takeLease = 1
let runtimeDir: string
let directory: RuntimeDirectory
let server: ChildProcess
let printed = ''
/** By what they are. */
const secrets = new Map<string, string>()

beforeAll(async () => {
  runtimeDir = makeTemporaryFolder()
  directory = RuntimeDirectory.open(runtimeDir)
  secrets.set('token of the cluster', directory.token())
  // Passed by the environment as well: that of this program is its own affair, that of its hosts and workers is not.
  const environment = { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir, PRAAS_TOKEN: directory.token() }
  server = spawn(process.execPath, [main, 'run', fixtureApp, '-p', 'main', '--listen', '127.0.0.1:0'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  for (const stream of [server.stdout, server.stderr]) stream?.on('data', (chunk) => (printed += String(chunk)))
  await vi.waitUntil(() => printed.includes('control '), { timeout: 50_000 })
  secrets.set('key of the process', directory.processKey('main'))
})
afterAll(async () => {
  server.kill('SIGTERM')
  await once(server, 'exit')
  expectNothingLeft(directory, 'main')
  rmSync(runtimeDir, { recursive: true, force: true })
})

/** As text, as bytes in hexadecimal, and as the bytes themselves. */
function expectNone(text: string, where: string): void {
  for (const [what, secret] of secrets) {
    const bytes = Buffer.from(secret, 'base64url')
    for (const form of [secret, bytes.toString('hex'), bytes.toString('base64'), bytes.toString('latin1')]) {
      // Not as the expected value of an assertion, which would print it.
      expect(text.includes(form), `${what} in ${where}`).toBe(false)
    }
  }
}

function praas(environment: NodeJS.ProcessEnv, ...args: string[]): Promise<string> {
  const env = { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir, ...environment }
  return new Promise((resolve) => {
    execFile(process.execPath, [main, ...args], { env }, (_error, stdout, stderr) => resolve(stdout + stderr))
  })
}

/** To a worker that the lease does not have. */
const stolen = () => ({ leaseKey: secrets.get('key of a lease') ?? '', leaseWorker: 7, token: '' })

/** All that is not the state of the application lies there. */
function beginningOf(path: string): string {
  const bytes = Buffer.alloc(16 << 20)
  const fd = openSync(path, 'r')
  const count = readSync(fd, bytes)
  closeSync(fd)
  return bytes.toString('latin1', 0, count)
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    const found = lstatSync(path)
    return found.isDirectory() ? filesBelow(path) : found.isFile() ? [path] : []
  })
}

it('secrets are found where they belong, so that looking for them means something', () => {
  expect(() => expectNone(readFileSync(join(runtimeDir, 'token'), 'latin1'), 'its file')).toThrow(
    'token of the cluster',
  )
  const { tokenKey } = directory.processPaths('main')
  expect(() => expectNone(readFileSync(tokenKey, 'latin1'), 'its file')).toThrow('key of the process')
})

it('secrets are in no argument, environment, log, registry, output or error', async () => {
  await using cluster = await connect(undefined, { runtimeDir })
  const served = await cluster.process('main', { create: false })
  const made = await served.token({ verbs: ['invoke', 'lease'] })
  secrets.set('token of the process', made)
  await using holding = await connect(undefined, { runtimeDir, token: made })
  const held = await holding.process('main', { create: false })
  await using lease = await held.lease({ ttlMs: '60 s' })
  await lease.invoke('speaks', Buffer.from('of the lease'))
  await held.invoke('speaks', Buffer.from('of the process'))

  const seen: [string, string][] = [['what praas run prints', printed]]
  const key = directory.processKey('main')
  const expired = { process: 'main', verbs: tokenVerbs, expiresMs: 1, endsConnections: true }
  const forged = mintToken(Buffer.alloc(32, 1).toString('base64url'), expired)
  secrets.set('forged token', forged)
  secrets.set('expired token', mintToken(key, expired))
  const { host, port } = await served.describe()
  const direct = { host, port, process: 'main', transport: 'tcp', timeoutMs: 20_000, windowBytes: 2 ** 24 } as const
  for (const token of [forged, mintToken(key, expired)]) {
    const refusals = [
      await failureOf(connect(undefined, { runtimeDir, token })),
      fromNative(await failureOf(native().connect({ ...direct, checksum: false, spinUs: 0, token }))),
    ]
    for (const error of refusals) seen.push(['an error', inspect(error, { depth: 10, showHidden: true })])
  }
  const mine = mintToken(key, { ...expired, expiresMs: Date.now() + 600_000 })
  const holder = await native().connect({ ...direct, checksum: false, spinUs: 0, token: mine })
  const terms = { workers: 1, lane: 0, hotMs: 0, ttlMs: 60_000, waitMs: 20_000 }
  secrets.set('key of a lease', (await holder.lease(takeLease, terms, 40_000)).key)
  for (const error of [
    fromNative(await failureOf(native().connect({ ...direct, checksum: false, spinUs: 0, ...stolen() }))),
    await failureOf(held.state.get('key')),
    await failureOf(held.token()),
    await failureOf(held.invoke('throwsError')),
    await failureOf(holding.process('other')),
    await failureOf(connect(undefined, { token: made, nonsense: made } as never)),
  ]) {
    seen.push(['an error', inspect(error, { depth: 10, showHidden: true })])
  }

  for (const command of [['ps'], ['ps', '--json'], ['inspect', 'main'], ['inspect', 'main', '--json'], ['doctor']]) {
    seen.push([command.join(' '), await praas({}, ...command)])
  }
  for (const command of [
    ['leases'],
    ['leases', '--json'],
    ['logs', 'main'],
    ['invoke', 'who'],
    ['clean', '--dry-run'],
  ]) {
    seen.push([command.join(' '), await praas({}, ...command)])
  }
  seen.push(['ps --verbose', await praas({ PRAAS_TOKEN: forged }, 'ps', '--verbose')])
  const who = { PRAAS_TOKEN: made, PRAAS_URL: '' }
  seen.push(['rm --verbose', await praas(who, 'rm', 'main', '--verbose')])

  const pids = descendantsOf(server.pid ?? 0)
  // The host, its worker, and the leased worker at least.
  expect(pids.length).toBeGreaterThanOrEqual(3)
  for (const pid of [server.pid ?? 0, ...pids]) {
    seen.push([`the arguments of ${pid}`, readFileSync(`/proc/${pid}/cmdline`, 'latin1')])
  }
  for (const pid of pids) {
    // What bundles applications is the agent's own child, as the agent is of who set PRAAS_TOKEN.
    if (readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes('esbuild')) continue
    seen.push([`the environment of ${pid}`, readFileSync(`/proc/${pid}/environ`, 'latin1')])
  }
  const own = new Set([join(runtimeDir, 'token'), directory.processPaths('main').tokenKey])
  for (const path of filesBelow(runtimeDir)) {
    if (!own.has(path)) seen.push([path, readFileSync(path, 'latin1')])
  }
  seen.push(['the segment', beginningOf(`/dev/shm${directory.processPaths('main').segment}`)])
  expect(existsSync(directory.processPaths('main').log)).toBe(true)
  for (const [where, text] of seen) expectNone(text, where)
  holder.close()
})
