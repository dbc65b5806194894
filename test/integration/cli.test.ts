import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readFileSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { exitCodeHelp, exitCodes } from '../../src/cli/exit_codes.js'
import { connect } from '../../src/client/connect.js'
import type { LeaseList } from '../../src/client/lease_report.js'
import { compiledModule, packageVersion } from '../../src/package.js'
import { expectNothingLeft, fixtureApp } from '../support/cluster.js'
import { makeTemporaryFolder, temporaryFolder } from '../support/temporary.js'

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

const main = compiledModule('cli/main.js')
let runtimeDir: string
let server: ChildProcess
let announced: { url: string; listen: string; functions: string[] }

function praas(...args: string[]): Promise<Outcome> {
  return praasWithInput(undefined, ...args)
}

function praasWithInput(input: string | undefined, ...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const environment = { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir }
    const child = execFile(process.execPath, [main, ...args], { env: environment }, (error, stdout, stderr) => {
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr })
    })
    child.stdin?.end(input ?? '')
  })
}

beforeAll(async () => {
  runtimeDir = makeTemporaryFolder()
  const args = ['run', fixtureApp, '-p', 'main', '--memory', '64MiB', '--listen', '127.0.0.1:0', '--json', '--dev']
  server = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  let text = ''
  server.stdout?.on('data', (chunk) => (text += String(chunk)))
  await vi.waitUntil(() => text.includes('\n}\n'), { timeout: 50_000 })
  announced = JSON.parse(text.slice(0, text.indexOf('\n}\n') + 2)) as typeof announced
})
afterAll(async () => {
  server.kill('SIGTERM')
  expect(await once(server, 'exit')).toEqual([0, null])
  expectNothingLeft(RuntimeDirectory.open(runtimeDir), 'main')
  rmSync(runtimeDir, { recursive: true, force: true })
})

describe('praas invoke', () => {
  it('prints JSON of functions that give more than bytes', async () => {
    expect(await praas('invoke', 'add', '{"a":1,"b":2}')).toMatchObject({ status: 0, stdout: '3\n' })
    const { stdout } = await praas('invoke', 'who')
    expect(stdout).toContain('  "processId": "main"')
    expect(await praas('invoke', 'doubled', '[1.5,2]')).toMatchObject({ stdout: '[\n  3,\n  4\n]\n' })
  })

  it('prints bytes as they are', async () => {
    expect(await praas('invoke', 'echo', 'as it is')).toMatchObject({ status: 0, stdout: 'as it is' })
    expect(await praas('invoke', 'nothing')).toMatchObject({ status: 0, stdout: '' })
  })

  it('takes input from and writes results to files', async () => {
    const folder = temporaryFolder()
    const [input, output] = [join(folder, 'in'), join(folder, 'out')]
    writeFileSync(input, Buffer.alloc(300_000, 'data'))
    expect(await praas('invoke', 'echo', '--file', input, '--out', output)).toMatchObject({ status: 0, stdout: '' })
    expect(Buffer.compare(readFileSync(output), readFileSync(input))).toBe(0)
    expect(await praasWithInput('{"a":3,"b":4}', 'invoke', 'add', '--file', '-')).toMatchObject({ stdout: '7\n' })
    expect(await praasWithInput('{"a":3,"b":5}', 'invoke', 'add', '-')).toMatchObject({ stdout: '8\n' })
  })

  it('streams', async () => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, 'in'), 'a line\n'.repeat(100_000))
    const outcome = await praas('invoke', 'upper', '-f', join(folder, 'in'), '-o', join(folder, 'out'))
    expect(outcome).toMatchObject({ status: 0 })
    expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('A LINE\n'.repeat(100_000))
    expect(await praas('invoke', 'upper', 'shout')).toMatchObject({ stdout: 'SHOUT' })
  })

  it('prints one JSON document for scripts', async () => {
    const { stdout } = await praas('invoke', 'add', '{"a":1,"b":2}', '--json')
    expect(JSON.parse(stdout)).toMatchObject({ output: 3 })
    const failed = await praas('invoke', 'throwsError', '--json')
    expect(JSON.parse(failed.stderr)).toMatchObject({
      error: { code: 'ERR_FUNCTION_THREW', remote: { name: 'RangeError' } },
    })
  })

  it('shows where a function threw', async () => {
    const { status, stderr } = await praas('invoke', 'throwsError')
    expect(status).toBe(1)
    expect(stderr).toContain('RangeError: no such row')
    expect(stderr).toContain(`${fixtureApp}:`)
  })

  it.each([
    [['invoke', 'nowhere'], 3, 'ERR_FUNCTION_UNKNOWN'],
    [['invoke', 'echo', '-p', 'nobody'], 3, 'ERR_PROCESS_UNKNOWN'],
    [['invoke', 'add', 'no json'], 2, 'ERR_ARGUMENT_INVALID'],
    [['invoke', 'sleep', '60000', '--timeout', '50ms'], 1, 'ERR_INVOCATION_TIMEOUT'],
    [['invoke', 'sleep', '1', '--timeout', 'soon'], 2, 'ERR_ARGUMENT_INVALID'],
    [['invoke', 'echo', 'x', '--file', 'y'], 2, 'either DATA or --file'],
    [['invoke'], 2, '--help'],
    [['invoke', 'echo', '--wrong'], 2, 'wrong'],
    [['wrong'], 2, '--help'],
    [['run', '/nowhere/libfns.so'], 1, 'ERR_DEPLOY_FAILED'],
    [['run', '/nowhere/functions.json'], 1, 'cannot read the function table /nowhere/functions.json'],
    [['run', fixtureApp, '--native', '/nowhere/libfns.so'], 1, 'cannot deploy the library /nowhere/libfns.so'],
    [['run', fixtureApp, '--max-output', 'much'], 2, 'option maxOutput'],
    [['run', fixtureApp, '--native-workers', '1001'], 2, 'option nativeWorkers: expected an integer, 1 … 1000'],
    [['run', fixtureApp, '--worker-memory', '1MiB'], 2, 'option workerMemory'],
    [['run', fixtureApp, '--workers', '513'], 2, '1 … 512 for an application in TypeScript'],
    [['create', 'x', '--app', '/nowhere/libfns.so'], 1, 'cannot deploy the library /nowhere/libfns.so'],
    [[], 2, 'name a command'],
    [['ps', '--url', 'http://127.0.0.1:9'], 4, 'ERR_CLUSTER_UNREACHABLE'],
    [['ps', '--url', 'nonsense'], 2, 'ERR_ARGUMENT_INVALID'],
  ])('%j ends with status %i', async (args, status, message) => {
    const outcome = await praas(...args)
    expect(outcome.stderr).toContain(message)
    expect(outcome.status).toBe(status)
  })
})

describe('processes', () => {
  it('are created, listed, stopped with their state, and removed', async () => {
    expect(await praas('create', 'extra', '--workers', '2', '--memory', '32MiB')).toMatchObject({ status: 0 })
    const listed = await praas('ps')
    expect(listed.stdout).toMatch(/^ID +STATE +APP/)
    expect(listed.stdout).toMatch(/^extra +ready +app +\d+ +2 +32 MiB/m)
    expect(await praas('invoke', 'who')).toMatchObject({
      status: 2,
      stderr: expect.stringContaining('--process') as string,
    })
    expect(await praas('state', 'set', 'k', 'v', '-p', 'extra')).toMatchObject({ status: 0 })
    expect(await praas('stop', 'extra')).toMatchObject({ status: 0 })
    expect(await praas('create', 'extra', '--memory', '32MiB')).toMatchObject({ status: 0 })
    expect(await praas('state', 'get', 'k', '-p', 'extra')).toMatchObject({ stdout: 'v' })
    expect(await praas('rm', 'extra')).toMatchObject({ status: 0 })
    expectNothingLeft(RuntimeDirectory.open(runtimeDir), 'extra')
    expect(await praas('rm', 'extra')).toMatchObject({ status: 3 })
    const { stdout } = await praas('ps', '--json')
    expect((JSON.parse(stdout) as { id: string }[]).map(({ id }) => id)).toEqual(['main'])
  })

  it('that were stopped are removed without a cluster having them', async () => {
    await praas('create', 'stopped', '--memory', '32MiB')
    await praas('stop', 'stopped')
    expect(await praas('rm', 'stopped')).toMatchObject({ status: 0 })
    expectNothingLeft(RuntimeDirectory.open(runtimeDir), 'stopped')
  })

  it('are inspected', async () => {
    const { status, stdout } = await praas('inspect', 'main', '--json')
    expect(status).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ id: 'main', state: 'ready', transport: { transport: 'shm' } })
    expect((await praas('inspect', 'main')).stdout).toContain('segment')
    expect(await praas('inspect', 'nobody')).toMatchObject({ status: 3 })
  })

  it('are inspected when they are gone, and damage is told field by field', async () => {
    await praas('create', 'hit', '--memory', '32MiB')
    await praas('stop', 'hit')
    const { segment } = RuntimeDirectory.open(runtimeDir).processPaths('hit')
    expect(await praas('inspect', segment)).toMatchObject({ status: 0 })
    const object = openSync(join('/dev/shm', segment), 'r+')
    try {
      // The magic, and meta_bytes behind it (native/segment/layout.h).
      writeSync(object, Buffer.alloc(8, 7), 0, 8, 0)
      writeSync(object, Buffer.alloc(8, 7), 0, 8, 32)
    } finally {
      closeSync(object)
    }
    for (const name of ['hit', segment]) {
      const { status, stdout } = await praas('inspect', name, '--json')
      expect(status).toBe(6)
      expect(JSON.parse(stdout)).toMatchObject({
        segment: {
          processId: 'hit',
          refused: 'the object is no segment',
          violations: [
            'header.magic: expected 0x3147455353415250, found 0x0707070707070707',
            expect.stringMatching(/^header\.meta_bytes: expected \d+, found 506381209866536711$/),
          ],
        },
      })
    }
    expect((await praas('inspect', 'hit')).stdout).toContain('\ndamaged      header.magic: expected')
    await praas('rm', 'hit')
    expectNothingLeft(RuntimeDirectory.open(runtimeDir), 'hit')
  })

  it('have logs', async () => {
    await praas('invoke', 'speaks', 'into the log')
    await expect
      .poll(async () => (await praas('logs', 'main')).stdout, { timeout: 30_000 })
      .toContain('said into the log')
    expect(await praas('logs', 'nobody')).toMatchObject({ status: 3 })
  })

  it('have logs that can be followed', async () => {
    const child = spawn(process.execPath, [main, 'logs', 'main', '-f', '--tail', '1'], {
      env: { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    let text = ''
    const speaking = setInterval(() => void praas('invoke', 'speaks', 'followed'), 2_000)
    for await (const chunk of child.stdout) {
      text += String(chunk)
      if (text.includes('said followed')) break
    }
    clearInterval(speaking)
    child.kill()
    await once(child, 'exit')
  })
})

describe('praas state', () => {
  it('sets, gets and lists', async () => {
    expect(await praas('state', 'set', 'config', '{"steps":3}', '--codec', 'json')).toMatchObject({ status: 0 })
    expect(await praas('state', 'get', 'config', '--codec', 'json')).toMatchObject({ stdout: '{\n  "steps": 3\n}\n' })
    const { stdout } = await praas('state', 'get', 'config', '--json')
    expect(Buffer.from((JSON.parse(stdout) as { value: string }).value, 'base64').toString()).toBe('{"steps":3}')
    expect((await praas('state', 'keys', 'conf')).stdout).toMatch(/^config +value +11 B/m)
    const out = join(temporaryFolder(), 'out')
    await praas('state', 'get', 'config', '--out', out)
    expect(readFileSync(out, 'utf8')).toBe('{"steps":3}')
    expect(await praas('state', 'set', 'config', '--file', out)).toMatchObject({ status: 0 })
  })

  it('publishes and reads', async () => {
    expect(await praas('state', 'set', 'shown', 'text')).toMatchObject({ status: 0 })
    expect(await praas('state', 'read', 'shown')).toMatchObject({ status: 0, stdout: 'text' })
    expect(JSON.parse((await praas('state', 'publish', 'shown', '--capacity', '10KiB', '--json')).stdout)).toEqual({
      published: true,
      capacity: 3 * 4096 - 64,
    })
    expect(await praas('state', 'read', 'shown')).toMatchObject({ status: 0, stdout: 'text' })
    expect((await praas('inspect', 'main')).stdout).toMatch(/"key": "shown",\s+"capacity": 12224/)
    expect(JSON.parse((await praas('state', 'publish', 'shown', '--end', '--json')).stdout)).toEqual({
      published: false,
    })
    expect((await praas('inspect', 'main')).stdout).toMatch(/"publicationCount": 0/)
    expect(await praas('state', 'publish', 'shown', '--capacity', 'much')).toMatchObject({ status: 2 })
    expect(await praas('state', 'publish', 'shown', '--capacity', '1TiB')).toMatchObject({
      stderr: expect.stringContaining('option publications') as string,
    })
  })

  it('says what is missing', async () => {
    expect(await praas('state', 'read', 'none')).toMatchObject({ status: 3 })
    expect(await praas('state', 'get', 'none')).toMatchObject({ status: 3 })
    expect(await praas('state', 'set', 'none')).toMatchObject({ status: 2 })
    expect(await praas('state')).toMatchObject({ status: 2 })
  })
})

describe('praas leases', () => {
  it('lists who has leases, and what they and all before them have used', async () => {
    const cluster = await connect(undefined, { runtimeDir })
    onTestFinished(() => cluster.close())
    const holder = await cluster.process('main', { create: false })
    const lease = await holder.lease({ workers: 2, hotMs: 0, name: 'listed', ttlMs: 600_000 })
    await lease.invoke('echo', new Uint8Array(2048))
    const { stdout } = await praas('leases')
    expect(stdout).toMatch(
      new RegExp(`^main +${lease.id} +listed +${process.pid} +2 node +(10|9\\.\\d+) min .* 1 +0 +2 KiB +2 KiB`, 'm'),
    )
    expect(stdout).toMatch(/^main +1 +0 +62 of 64 .* 1 +0 +2 KiB +2 KiB/m)
    const [listed] = JSON.parse((await praas('leases', 'main', '--json')).stdout) as [LeaseList & { process: string }]
    expect(listed).toMatchObject({
      process: 'main',
      leases: [{ name: 'listed', calls: 1, perWorker: [{ pid: lease.workers[0]?.pid }, {}] }],
      capacity: 64,
      free: 62,
      totals: { leases: 1 },
    })
    await lease.close()
    expect((await praas('leases')).stdout).not.toContain('listed')
    expect(await praas('leases', 'nobody')).toMatchObject({ status: 3 })
  })

  it('shows escape sequences in names that others have chosen, and does not let them reach the terminal', async () => {
    const cluster = await connect(undefined, { runtimeDir })
    onTestFinished(() => cluster.close())
    const holder = await cluster.process('main', { create: false })
    const lease = await holder.lease({ workers: 1, hotMs: 0, name: 'lease \x1b[2J\rhere', ttlMs: 600_000 })
    await holder.state.set('key \x1b]0;title\x07', Buffer.from('x'))
    expect((await praas('leases', 'main')).stdout).toMatch(/^main +\d+ +lease \\x1b\[2J\\x0dhere +/m)
    expect((await praas('state', 'keys', 'key ')).stdout).toMatch(/^key \\x1b\]0;title\\x07 +value +1 B/m)
    await lease.close()
  })
})

describe('everything else', () => {
  it('explains itself', async () => {
    const { status, stdout } = await praas('--help')
    expect(status).toBe(0)
    for (const command of [
      'run',
      'invoke',
      'create',
      'ps',
      'stop',
      'rm',
      'state',
      'leases',
      'logs',
      'inspect',
      'doctor',
      'clean',
      'completion',
    ]) {
      expect(stdout).toMatch(new RegExp(`praas ${command}\\b`))
    }
    expect(stdout).toContain('Exit status: 0 ok')
    for (const status of Object.values(exitCodes)) expect(exitCodeHelp).toMatch(new RegExp(`[:·] ${status} `))
    expect((await praas('invoke', '--help')).stdout).toContain('thumbnail --file big.png')
    expect(await praas('--version')).toMatchObject({ status: 0, stdout: `${packageVersion()}\n` })
    expect((await praas('completion')).stdout).toContain('praas')
  })

  it('examines the machine', async () => {
    const { stdout } = await praas('doctor', '--json')
    const findings = JSON.parse(stdout) as { what: string; state: string }[]
    expect(findings.map(({ what }) => what)).toEqual(
      expect.arrayContaining(['Node', 'native addon', '/dev/shm', 'message queues', 'runtime directory', 'leftovers']),
    )
    expect(findings.filter(({ state }) => state === 'bad')).toEqual([])
    expect(findings).toContainEqual({ what: expect.stringMatching(/^process /) as string, state: 'ok', found: 'shm' })
    expect((await praas('doctor')).stdout).toContain('native addon')
  })

  it('lets a cluster open as many files as the system allows', () => {
    const [, soft, hard] =
      /^Max open files\s+(\d+)\s+(\d+)/m.exec(readFileSync(`/proc/${server.pid}/limits`, 'utf8')) ?? []
    expect(soft).toBeDefined()
    expect(soft).toBe(hard)
  })

  it('has nothing to clean while all is well', async () => {
    expect(await praas('clean', '--dry-run')).toMatchObject({
      status: 0,
      stderr: expect.stringContaining('1 processes are alive') as string,
    })
  })

  it('announces what is served, also for other machines', async () => {
    expect(announced.functions).toContain('echo')
    expect(announced.listen).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    const token = RuntimeDirectory.open(runtimeDir).token()
    const remote = { ...process.env, PRAAS_RUNTIME_DIR: temporaryFolder(), PRAAS_URL: announced.listen }
    const ask = (environment: NodeJS.ProcessEnv): Promise<number> =>
      new Promise((resolve) => {
        execFile(process.execPath, [main, 'ps'], { env: environment }, (error) =>
          resolve(error ? Number(error.code) : 0),
        )
      })
    expect(await ask({ ...remote, PRAAS_TOKEN: token })).toBe(0)
    expect(await ask({ ...remote, PRAAS_TOKEN: 'wrong' })).toBe(5)
  })
})
