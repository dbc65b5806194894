/** `praas run` serves until it is interrupted, whatever becomes of what it prints. */
import { spawn, type ChildProcess, type StdioOptions } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, openSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished, vi } from 'vitest'
import { cleanRuntimeDirectory } from '../../src/agent/clean.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import type { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import { compiledModule } from '../../src/package.js'
import { expectNothingLeft, fixtureApp } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

const kept = Uint8Array.from([1, 2, 3])

interface Served {
  readonly child: ChildProcess
  readonly directory: RuntimeDirectory
  readonly cluster: Cluster
  /** What it says about itself. */
  readonly said: () => string
}

async function serve(stdout: 'pipe' | number = 'pipe', args = [fixtureApp, '-p', 'main']): Promise<Served> {
  const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
  const stdio: StdioOptions = ['ignore', stdout, 'pipe']
  const child = spawn(process.execPath, [compiledModule('cli/main.js'), 'run', ...args], {
    env: { ...process.env, PRAAS_RUNTIME_DIR: directory.path },
    stdio,
  })
  // What is left when a test fails.
  onTestFinished(async () => {
    if (child.kill('SIGKILL')) await once(child, 'exit')
    await vi.waitUntil(() => cleanRuntimeDirectory(directory).alive === 0, { timeout: 20_000 })
  })
  let text = ''
  child.stderr?.on('data', (chunk) => (text += String(chunk)))
  await vi.waitUntil(() => /^(control|standard output)/m.test(text) || child.exitCode !== null, { timeout: 50_000 })
  const cluster = await connect(undefined, { runtimeDir: directory.path })
  onTestFinished(() => cluster.close())
  return { child, directory, cluster, said: () => text }
}

async function expectEnds({ child, directory }: Served): Promise<void> {
  child.kill('SIGTERM')
  expect(await once(child, 'exit')).toEqual([0, null])
  expectNothingLeft(directory, 'main')
}

it('goes on when the process it began with is stopped, and prints from its start what the next of its name does', async () => {
  const served = await serve()
  let printed = ''
  served.child.stdout?.on('data', (chunk) => (printed += String(chunk)))
  const other = await served.cluster.process('other')
  await other.state.set('k', kept)
  await served.cluster.stop('main')
  await vi.waitUntil(() => served.said().includes('process main has ended; the cluster goes on'), { timeout: 20_000 })
  expect(await other.state.get('k')).toEqual(kept)
  const again = await served.cluster.process('main')
  await again.invoke('speaks', Buffer.from('once, at its start'))
  await vi.waitUntil(() => printed.includes('said once, at its start'), { timeout: 20_000 })
  await expectEnds(served)
})

it('goes on when the log cannot be read, and says so once', async () => {
  const served = await serve()
  const main = await served.cluster.process('main')
  await main.state.set('k', kept)
  const { log } = served.directory.processPaths('main')
  renameSync(log, `${log}.away`)
  mkdirSync(log)
  await vi.waitUntil(() => served.said().includes('what process main prints cannot be shown now: EISDIR'), {
    timeout: 20_000,
  })
  expect(await main.state.get('k')).toEqual(kept)
  rmSync(log, { recursive: true })
  renameSync(`${log}.away`, log)
  await expectEnds(served)
  expect(served.said().match(/EISDIR/g)).toHaveLength(1)
})

it.each(['a reader that has left', 'a full disk'])('goes on with %s at its standard output', async (which) => {
  const served = await serve(which === 'a full disk' ? openSync('/dev/full', 'w') : 'pipe')
  const main = await served.cluster.process('main')
  await main.state.set('k', kept)
  served.child.stdout?.destroy()
  await main.invoke('speaks', Buffer.from('to nobody'))
  await vi.waitUntil(() => served.said().includes('`praas logs` shows what workers print'), { timeout: 20_000 })
  expect(await main.state.get('k')).toEqual(kept)
  await expectEnds(served)
})

it('serves an empty cluster though nobody hears of it', async () => {
  const served = await serve(openSync('/dev/full', 'w'), ['--json'])
  const main = await served.cluster.process('main', { app: fixtureApp })
  await main.state.set('k', kept)
  expect(await main.state.get('k')).toEqual(kept)
  await expectEnds(served)
})

it('ends when it is told to, though nobody reads what it has printed', async () => {
  const served = await serve()
  served.child.stdout?.pause()
  const main = await served.cluster.process('main')
  for (let line = 0; line < 64; line++) await main.invoke('speaks', Buffer.alloc(16_384, 'x'))
  await expectEnds(served)
})
