/** The example as its users run it, in an OS process of its own. */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { packageRoot } from '../../src/package.js'
import { expectNothingLeft, untilGone } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

const small = ['--workers', '2', '--options', '10000', '--per-call', '250', '--grid', '150', '--sweeps', '100']

function offload(runtimeDir: string, ...args: string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const command = ['--import', 'tsx', join(packageRoot, 'examples', 'offload', 'main.ts'), ...args]
    const options = { cwd: packageRoot, env: { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir } }
    execFile(process.execPath, command, options, (error, stdout, stderr) => {
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr })
    })
  })
}

describe('offload', () => {
  it.each([
    ['native workers over shm, that always poll', ['--transport', 'shm', '--hot-ms=-1']],
    ['TypeScript workers over tcp, that never poll', ['--runtime', 'node', '--transport', 'tcp', '--hot-ms=0']],
  ])('%s: results are those of the serial computation', async (_what, args) => {
    const { stdout } = await runClean(...args)
    expect(stdout).not.toMatch(/killed|died/)
  })

  it.each([
    ['native', 'shm'],
    ['native', 'tcp'],
    ['node', 'shm'],
  ])('a %s worker that is killed is done without, over %s', async (runtime, transport) => {
    const { stdout } = await runClean('--kill', '--runtime', runtime, '--transport', transport)
    expect(stdout).toMatch(/worker 1 \(pid \d+\) was killed after 20 of 40 parts; the others priced the rest/)
    expect(stdout).toMatch(/sweep 5\d: worker 1 \(pid \d+\) has died; its \d+ rows go to the others/)
  })

  it('with its only worker killed goes on alone', async () => {
    const { stdout } = await runClean('--kill', '--workers', '1')
    expect(stdout).toMatch(/worker 0 \(pid \d+\) was killed after 20 of 40 parts/)
  })

  it.each([
    [['--workers', '0'], '--workers takes an integer, 1 … 64; it is 0'],
    [['--runtime', 'python'], '--runtime takes one of native, node; it is python'],
  ])('%j is refused', async (args, message) => {
    const { status, stderr } = await offload(temporaryFolder(), ...args)
    expect(status).toBe(1)
    expect(stderr).toContain(message)
  })
})

/** With small sizes; verified results, and nothing left behind. */
async function runClean(...args: string[]): Promise<Outcome> {
  const runtimeDir = temporaryFolder()
  const outcome = await offload(runtimeDir, ...small, ...args)
  expect(outcome).toMatchObject({ status: 0, stderr: '' })
  for (const line of [
    /^verified: prices differ from the serial ones by at most \S+ of their value$/m,
    /^verified: the same as the serial grid in every bit, and right within \S+$/m,
  ]) {
    expect(outcome.stdout).toMatch(line)
  }
  expectNothingLeft(RuntimeDirectory.open(runtimeDir), 'offload')
  for (const pid of pidsWith(runtimeDir)) await untilGone(pid)
  return outcome
}

/** Processes that name a folder in their environment. */
function pidsWith(folder: string): number[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return []
    try {
      return readFileSync(`/proc/${name}/environ`, 'utf8').includes(folder) ? [Number(name)] : []
    } catch {
      // Of another user, or gone.
      return []
    }
  })
}
