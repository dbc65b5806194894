/** Each suite as its users start it, with a few samples: whether the figures are there, not what they are. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, vi } from 'vitest'
import type { Report, Result } from '../../src/bench/result.js'
import { compiledModule } from '../../src/package.js'
import { temporaryFolder } from '../support/temporary.js'

// A watchdog, not a bound: machines with few cores are busy with other tests.
vi.setConfig({ testTimeout: 300_000 })

interface Outcome {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

function praas(folder: string, args: readonly string[]): Promise<Outcome> {
  return new Promise((resolve) => {
    const environment = { ...process.env, TMPDIR: folder }
    const main = compiledModule('cli/main.js')
    execFile(process.execPath, [main, 'bench', ...args], { env: environment }, (error, stdout, stderr) => {
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr })
    })
  })
}

/** Runs a suite, and checks what holds for every report. */
async function run(...args: string[]): Promise<Report & { readonly stdout: string }> {
  const [folder, out] = [temporaryFolder(), temporaryFolder()]
  const json = join(out, 'out.json')
  const { status, stdout, stderr } = await praas(folder, [...args, '--json', json])
  // A machine that does other things meanwhile may be late.
  if (args[0] !== 'lease') expect({ status, stderr }).toMatchObject({ status: 0 })
  expect(readdirSync(folder)).toEqual([])
  const report = JSON.parse(readFileSync(json, 'utf8')) as Report
  expect(report.machine.cores).toBeGreaterThan(0)
  expect(report.command).toBe(
    `praas bench ${args.map((arg) => (arg.includes(' ') ? `'${arg}'` : arg)).join(' ')} --json ${json}`,
  )
  expect(report.versions.node).toBe(process.version)
  if (!report.machine.coreEach) expect(stderr).toContain('no core each')
  for (const result of report.results) expectFigures(result)
  return { ...report, stdout }
}

function expectFigures(result: Result): void {
  expect(result.samples).toBeGreaterThan(0)
  const { minNs, opsPerSec, floor, floorP50Ns, floorOpsPerSec, ratio } = result
  expect(result.minusFloorNs).toBe(floorP50Ns === null ? null : result.p50Ns - floorP50Ns)
  for (const figure of [minNs, opsPerSec, ...(floor === null ? [] : [floorP50Ns, floorOpsPerSec, ratio])]) {
    expect(figure, JSON.stringify(result)).toBeGreaterThan(0)
  }
  expect(result.p99Ns).toBeGreaterThanOrEqual(result.p50Ns)
  expect(result.p999Ns).toBeGreaterThanOrEqual(result.p99Ns)
}

const few = ['--samples', '4', '--rounds', '2']

it('invoke of leased workers', async () => {
  const chosen = ['--path', 'host,lease', '--function', 'null,touch,discard']
  const { results, stdout } = await run('invoke', '--sizes', '64,8KiB', ...chosen, ...few)
  const leased = results.filter(({ path }) => path === 'lease')
  const beside = results.filter(({ path }) => path === null)
  // Transports, modes, functions, sizes, kinds, clients.
  expect(leased).toHaveLength(2 * 2 * 3 * 2 * 2 * 3)
  expect(beside.map(({ client }) => client)).toEqual(['praas-floor eventfd', 'praas-floor eventfd'])
  expect(results).toHaveLength(2 * leased.length + beside.length)
  expect(new Set(leased.map(({ transport, mode, floor }) => `${transport} ${mode} ${floor}`))).toEqual(
    new Set([
      ...['shm hot ring', 'shm hot ring(64 B)', 'shm warm futex', 'shm warm futex(64 B)'],
      ...['tcp hot tcp-spin', 'tcp warm tcp'],
    ]),
  )
  for (const name of ['PATH', 'MINUS FLOOR', 'BANDWIDTH']) expect(stdout).toContain(name)
})

it('first calls of leased workers', async () => {
  const { results, quantities } = await run('cold', '--path', 'lease', '--samples', '1', '--rounds', '1')
  // Transports, kinds, clients, phases of a new worker and of one that is there.
  expect(results).toHaveLength(2 * 2 * 2 * (7 + 5))
  const sum = (phase: RegExp): number =>
    results.filter(({ function: name }) => phase.test(name)).reduce((total, { p50Ns }) => total + p50Ns, 0)
  // Each phase begins where the one before has ended, and nothing is counted twice.
  expect(sum(/: (?!all)/) / sum(/: all/)).toBeGreaterThan(0.5)
  expect(sum(/: (?!all)/) / sum(/: all/)).toBeLessThanOrEqual(1.01)
  expect(quantities).toEqual([])
})

it('the end of leases', async () => {
  const chosen = ['--kind', 'native', '--samples', '1', '--ttl', '100', '--leases', '20']
  const { quantities, checks = [], stdout } = await run('lease', ...chosen)
  // Of each transport.
  expect(quantities).toHaveLength(2 * (3 + 2))
  expect(checks).toHaveLength(2 * (5 + 5))
  // What is left is no question of time.
  for (const { name, value, most } of checks)
    if (name.includes(': more ')) expect(value, name).toBeLessThanOrEqual(most)
  expect(stdout).toContain('AT MOST')
})

it('invoke', async () => {
  const { results, stdout } = await run('invoke', '--sizes', '64,8KiB', '--nested', ...few)
  const calls = results.filter(({ transport }) => transport !== null)
  // Transports, modes, functions, sizes, kinds, clients.
  expect(calls).toHaveLength(2 * 2 * 2 * 2 * 2 * 3)
  expect(results.length - calls.length).toBe(2 * 2 * 3)
  expect(new Set(results.map(({ client }) => client))).toEqual(
    new Set(['native', 'invokeSync', 'await invoke', 'ctx.invokeSync', 'await ctx.invoke', 'praas_invoke']),
  )
  expect(new Set(results.map(({ floor }) => floor))).toEqual(
    new Set(['ring', 'ring(64 B)', 'mq', 'futex', 'tcp-spin', 'tcp+mq']),
  )
  expect(stdout).toContain('RATIO')
})

it('invoke beside connections, processes and functions that do nothing, on given cores', async () => {
  const load = ['--connections', '0,3', '--processes', '2', '--functions', '5,1020', '--pin', '0,0']
  const chosen = ['--mode', 'warm', '--client', 'invokeSync', '--function', 'null']
  const { results, stdout } = await run('invoke', '--sizes', '64', ...load, ...chosen, ...few)
  const beside = ({ idleConnections, idleProcesses, idleFunctions }: Result) => [
    ...[idleConnections, idleProcesses, idleFunctions],
  ]
  expect(results.filter(({ transport, kind }) => transport === 'tcp' && kind === 'native').map(beside)).toEqual([
    [undefined, 2, 5],
    [undefined, 2, 1020],
    [3, 2, 5],
    [3, 2, 1020],
  ])
  expect(results).toHaveLength(2 * 2 * 2 * 2)
  for (const name of ['IDLE CONNECTIONS', 'IDLE PROCESSES', 'IDLE FUNCTIONS']) expect(stdout).toContain(name)
})

it('refuses more idle connections than there may be open files', async () => {
  const chosen = ['--mode', 'warm', '--kind', 'native', '--client', 'invokeSync', '--function', 'null', '--sizes', '64']
  const args = ['-c', 'ulimit -n 300; exec "$@"', 'sh', process.execPath, compiledModule('cli/main.js'), 'bench']
  const { status, stderr } = await new Promise<Outcome>((resolve) => {
    execFile('sh', [...args, 'invoke', '--connections', '300', ...chosen, ...few], (error, stdout, text) =>
      resolve({ status: error ? Number(error.code) : 0, stdout, stderr: text }),
    )
  })
  expect(stderr).toMatch(/--connections 300: this program would have \d+ open files, and may have 300 \(ulimit -Hn\)/)
  expect(status).not.toBe(0)
})

it('state', async () => {
  const { results } = await run('state', '--sizes', '64,8KiB', '--keys', '1,100', '--pin', '0,0', ...few)
  const rows = results.map(({ function: name, bytes, keys }) => `${name} ${bytes} ${keys}`)
  expect(rows).toHaveLength((6 + 2 * 2) * 2 * 2)
  expect(rows).toEqual(expect.arrayContaining(['view 64 1', 'append 8192 100', 'array[i] 64 100', 'read 64 1']))
  for (const { function: name, transport, floor } of results) {
    expect(floor).toBe(name === 'array[i]' ? 'Float64Array' : transport === 'tcp' ? 'tcp' : 'memcpy')
  }
})

it('cold', async () => {
  const idle = ['--processes', '1,2', '--seconds', '1', '--workers', '3']
  const { results, quantities } = await run('cold', '--samples', '1', '--rounds', '1', ...idle)
  expect(results.map(({ kind, function: name, floor }) => [kind, name, floor])).toEqual([
    ['ts', 'create and call', 'node -e 0'],
    ['native', 'create and call', 'node -e 0'],
    ['ts', 'create and call, from the pool', 'node -e 0'],
    ['native', 'create and call, from the pool', 'node -e 0'],
  ])
  const names = quantities.map(({ name }) => name).join('\n')
  for (const part of ['/bin/true', 'idle process, of 1, median', '2 idle processes', '3 native workers'])
    expect(names).toContain(part)
  const memory = quantities.find(({ name }) => name.startsWith('private memory'))
  expect(memory?.value).toBeGreaterThan(0)
})

it('throughput, with a table for scripts', async () => {
  const csv = join(temporaryFolder(), 'out.csv')
  const clients = ['--client', 'native,await invoke,invokeMany']
  const { results } = await run('throughput', '--concurrency', '2,8', '--csv', csv, ...clients, '--samples', '40')
  expect(results).toHaveLength(2 * 2 * 2 * 3)
  for (const { floor, transport } of results) expect(floor).toBe(transport === 'tcp' ? 'tcp' : 'ring')
  expect(readFileSync(csv, 'utf8').trimEnd().split('\r\n')).toHaveLength(results.length + 1)
})

it('leaves nothing when it is interrupted', async () => {
  const folder = temporaryFolder()
  const args = [compiledModule('cli/main.js'), 'bench', 'throughput', '--samples', '1000000']
  const child = spawn(process.execPath, args, { env: { ...process.env, TMPDIR: folder }, stdio: 'ignore' })
  const files = (): string[] => readdirSync(folder, { recursive: true }).map(String)
  // A process of the cluster has its socket there.
  await expect.poll(() => files().some((path) => path.endsWith('.sock')), { timeout: 30_000 }).toBe(true)
  child.kill('SIGINT')
  expect(await once(child, 'exit')).toEqual([130, null])
  expect(readdirSync(folder)).toEqual([])
})

it('wrong usage', async () => {
  const folder = temporaryFolder()
  expect(await praas(folder, [])).toMatchObject({ status: 2 })
  expect(await praas(folder, ['nonsense'])).toMatchObject({ status: 2 })
  expect((await praas(folder, ['invoke', '--mode', 'tepid'])).stderr).toContain('--mode: expected some of hot, warm')
  expect((await praas(folder, ['invoke', '--path', 'wire'])).stderr).toContain('--path: expected some of host, lease')
  const nowhere = join(folder, 'nowhere', 'out.json')
  for (const option of ['--json', '--csv']) {
    const { status, stdout, stderr } = await praas(folder, ['invoke', option, nowhere])
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' })
    expect(stderr).toContain(`cannot write to ${nowhere}`)
  }
  expect((await praas(folder, ['state', '--csv', folder])).stderr).toContain(
    `cannot write to ${folder}: it is a folder`,
  )
  expect((await praas(folder, ['state', '--plot', 'x.png'])).stderr).toContain('.html or .svg')
})
