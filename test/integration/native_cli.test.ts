/** `praas run` with native functions, as a child process. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { connect } from '../../src/client/connect.js'
import { compiledModule } from '../../src/package.js'
import { expectNothingLeft, untilGone } from '../support/cluster.js'
import { libraries, pattern, tables, withoutCereal, workerPids } from '../support/native.js'
import { temporaryFolder } from '../support/temporary.js'

const main = compiledModule('cli/main.js')
const mixedApp = fileURLToPath(new URL('../fixtures/mixed_app.ts', import.meta.url))

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

interface Serving {
  readonly runtimeDir: string
  readonly functions: readonly string[]
  praas(...args: string[]): Promise<Outcome>
  /** Interrupts it; nothing may be left then. */
  end(): Promise<void>
}

/** `praas run ARGS`, once it serves. */
async function run(id: string, ...args: string[]): Promise<Serving> {
  const runtimeDir = temporaryFolder()
  const environment = { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir }
  const server = spawn(process.execPath, [main, 'run', ...args, '--memory', '64MiB', '--json'], {
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void server.kill('SIGKILL'))
  let text = ''
  server.stdout.on('data', (chunk) => (text += String(chunk)))
  await vi.waitUntil(() => text.includes('\n}\n') || server.exitCode !== null, { timeout: 50_000 })
  const announced = JSON.parse(text.slice(0, text.indexOf('\n}\n') + 2)) as { process: string; functions: string[] }
  expect(announced.process).toBe(id)
  const praas = (...parameters: string[]): Promise<Outcome> =>
    new Promise((resolve) => {
      execFile(process.execPath, [main, ...parameters], { env: environment }, (error, stdout, stderr) =>
        resolve({ status: error ? Number(error.code) : 0, stdout, stderr }),
      )
    })
  const end = async (): Promise<void> => {
    await using cluster = await connect(undefined, { runtimeDir })
    const pids = await workerPids(await cluster.process(id, { create: false }))
    expect(pids.length).toBeGreaterThan(0)
    server.kill('SIGTERM')
    expect(await once(server, 'exit')).toEqual([0, null])
    for (const pid of pids) await untilGone(pid)
    expectNothingLeft(RuntimeDirectory.open(runtimeDir), id)
  }
  return { runtimeDir, functions: announced.functions, praas, end }
}

describe('praas run', () => {
  it('./lib.so serves every function of a library', async () => {
    const { functions, praas, end } = await run('libc_functions', libraries.c, '--workers', '2')
    expect(functions).toEqual(expect.arrayContaining(['reverse', 'state_set', 'echo']))
    expect(await praas('invoke', 'reverse', 'stressed')).toMatchObject({ status: 0, stdout: 'desserts' })
    const failed = await praas('invoke', 'fails', 'x')
    expect(failed.status).toBe(1)
    expect(failed.stderr).toContain('asked to fail with 42 and x')
    expect((await praas('ps')).stdout).toMatch(/^libc_functions +ready/m)
    await end()
  })

  it('./lib.so of rFaaS says how a function died', async () => {
    const { praas, end, runtimeDir } = await run('librfaas_functions', libraries.rfaas, '--max-output', '4MiB')
    expect(await praas('invoke', 'copy', 'text')).toMatchObject({ status: 0, stdout: 'text' })
    const crashed = await praas('invoke', 'segfault')
    expect(crashed.status).toBe(1)
    expect(crashed.stderr).toContain('ERR_WORKER_CRASHED')
    expect(crashed.stderr).toContain('SIGSEGV')
    expect(crashed.stderr).toContain('segfault')
    expect((await praas('logs', 'librfaas_functions')).stdout).toContain('about to write to address 8')
    await using cluster = await connect(undefined, { runtimeDir })
    const process = await cluster.process('librfaas_functions', { create: false })
    expect(Buffer.compare(await process.invoke('copy', pattern(4 << 20)), pattern(4 << 20))).toBe(0)
    await end()
  })

  it.skipIf(withoutCereal !== undefined)('functions.json serves a function table of PraaS', async () => {
    const { functions, praas, end } = await run('functions', tables.absolute)
    expect(functions).toEqual(['add', 'raw-copy', 'text-of'])
    expect(await praas('invoke', 'text-of', 'text')).toMatchObject({ status: 0, stdout: '<text>' })
    expect(await praas('invoke', 'raw-copy', 'text')).toMatchObject({ status: 0, stdout: 'text' })
    await end()
  })

  it('functions.json finds libraries beside it', async () => {
    const { functions, praas, end } = await run('functions_relative', tables.relative)
    expect(functions).toEqual(['returns-seven', 'text-of'])
    expect(await praas('invoke', 'text-of', 'text')).toMatchObject({ status: 0, stdout: '<text>' })
    await end()
  })

  it('app.ts --native ./lib.so serves both', async () => {
    const { praas, end } = await run('mixed_app', mixedApp, '--native', libraries.c, '--native-workers', '2')
    expect(await praas('invoke', 'call', 'invoke upper abc')).toMatchObject({ status: 0, stdout: 'ABC' })
    await end()
  })
})
