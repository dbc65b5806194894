/** A network that breaks without a word to either side. */
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { expect, it, onTestFinished } from 'vitest'
import { compiledModule } from '../../src/package.js'
import { Confined, obstacle } from '../support/confined.js'

const program = fileURLToPath(new URL('../fixtures/distant_client.mjs', import.meta.url))
const main = compiledModule('cli/main.js')
const dist = fileURLToPath(new URL('../../dist', import.meta.url))

/** Why there are no networks here, or undefined. */
function withoutNetworks(): string | undefined {
  const probe = spawnSync('unshare', ['--net', 'ip', 'link', 'add', 'praas0', 'type', 'veth', 'peer', 'name', 'praas1'])
  if (probe.error) return `unshare: ${probe.error.message}`
  return probe.status === 0 ? undefined : `no networks of its own: ${String(probe.stderr)}`
}
const why = obstacle() ?? withoutNetworks()
if (why !== undefined) console.log(`a network that breaks is not tested: ${why}`)

const inNetworkOf = (pid: number, ...command: string[]): string[] => ['--target', String(pid), '--net', ...command]
const run = (pid: number, ...command: string[]): void => void execFileSync('nsenter', inNetworkOf(pid, ...command))

it.skipIf(why !== undefined)(
  'both sides find out, nothing is kept for the other, and the client comes back',
  { timeout: 180_000 },
  async () => {
    const confined = await Confined.start({ address: '10.99.7.1' })
    /** `praas` beside the cluster. */
    const near = async (...args: string[]): Promise<string> => {
      const command = [process.execPath, main, ...args, '--url', confined.announced.url]
      return (await promisify(execFile)('nsenter', inNetworkOf(confined.pid, ...command))).stdout
    }
    const calls = async (): Promise<number> => {
      const { statistics } = JSON.parse(await near('inspect', 'main', '--json')) as {
        statistics: { callsInUse: number }
      }
      return statistics.callsInUse
    }
    expect(await calls()).toBe(0)

    const distant = spawn('unshare', ['--net', 'sh', '-c', 'echo there; exec sleep infinity'])
    onTestFinished(() => void distant.kill('SIGKILL'))
    const { pid = 0 } = distant
    await once(distant.stdout, 'data')
    run(confined.pid, 'ip', 'link', 'set', 'praas1', 'netns', String(pid))
    run(pid, 'ip', 'address', 'add', '10.99.7.2/24', 'dev', 'praas1')
    run(pid, 'ip', 'link', 'set', 'praas1', 'up')
    const token = (await near('token', 'main', '--verbs', 'invoke', '--ttl', '1h')).trim()
    const client = spawn('nsenter', inNetworkOf(pid, process.execPath, program, dist, confined.announced.listen), {
      env: { ...process.env, PRAAS_TOKEN: token },
    })
    onTestFinished(() => void client.kill('SIGKILL'))
    client.stderr.pipe(process.stderr)
    const lines = createInterface({ input: client.stdout })[Symbol.asyncIterator]()
    const heard = async (): Promise<unknown> => JSON.parse(((await lines.next()).value as string | undefined) ?? '{}')

    expect(await heard()).toEqual({ transport: 'tcp' })
    await expect.poll(calls, { timeout: 60_000 }).toBe(1)
    run(confined.pid, 'ip', 'link', 'set', 'praas0', 'down')
    expect(await heard()).toEqual({ code: 'ERR_CONNECTION_LOST' })
    await expect.poll(calls, { timeout: 60_000 }).toBe(0)
    // What it ran is over, too: its worker serves others.
    expect(await near('invoke', 'add', '{"a":1,"b":2}', '-p', 'main')).toBe('3\n')

    run(confined.pid, 'ip', 'link', 'set', 'praas0', 'up')
    client.stdin.write('again\n')
    expect(await heard()).toEqual({ sum: 3 })
    client.stdin.end()
    expect(await once(client, 'exit')).toEqual([0, null])
  },
)
