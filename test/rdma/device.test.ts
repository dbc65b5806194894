/** What is found out about a device, and what becomes of connections that cannot have one. */
import { execFile } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { capabilities } from '../../src/capabilities.js'
import { compiledModule, packageRoot } from '../../src/package.js'
import { startCluster, type TestCluster } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'
import { usableDevice } from './support.js'

let device: string
let started: TestCluster

beforeAll(async () => {
  device = usableDevice()
  started = await startCluster()
  await started.cluster.process('plain')
})
afterAll(() => started?.close())

interface Finding {
  what: string
  state: string
  found: string
  remedy?: string
}

interface Ran {
  status: number
  stdout: string
}

async function run(command: string[], environment: Record<string, string> = {}): Promise<Ran> {
  const [program = '', ...args] = command
  const options = { env: { ...process.env, ...environment } }
  const end = promisify(execFile)(program, args, options)
  return end.then(
    ({ stdout }) => ({ status: 0, stdout }),
    ({ code, stdout }: { code: number; stdout: string }) => ({ status: code, stdout }),
  )
}

async function doctor(environment: Record<string, string>): Promise<Ran & { all: Finding[] }> {
  const runtimeDir = temporaryFolder()
  const command = [process.execPath, compiledModule('cli/main.js'), 'doctor', '--json', '--loopback']
  const ran = await run(command, { PRAAS_RUNTIME_DIR: join(runtimeDir, 'run'), ...environment })
  return { ...ran, all: JSON.parse(ran.stdout) as Finding[] }
}

describe('a machine with a device', () => {
  it('has the transport', () => {
    const { transports, missing } = capabilities()
    expect(transports).toEqual(['shm', 'verbs', 'tcp'])
    expect(missing).not.toHaveProperty('verbs')
  })

  it('is examined: library, device, its file, its ports, and calls over it', async () => {
    const { status, all } = await doctor({})
    const about = (what: string): Finding | undefined => all.find((finding) => finding.what === what)
    expect(about('native addon')?.found).toContain('verbs')
    expect(about('RDMA library')).toMatchObject({ state: 'ok' })
    expect(about(`RDMA ${device}`)).toMatchObject({ state: 'ok', found: expect.stringMatching(/queue pairs/) })
    expect(about(`RDMA ${device} file`)).toMatchObject({ state: 'ok', found: expect.stringMatching(/uverbs/) })
    const ports = all.filter(({ what }) => what.startsWith(`RDMA ${device} port`))
    expect(ports).not.toEqual([])
    for (const { found } of ports) expect(found).toMatch(/^(RoCE|InfiniBand, LID \d+), \w+, MTU \d+, GIDs \d+ /)
    expect(about('locked memory')).toBeDefined()
    const found = expect.stringMatching(/^calls there and back: 64 B in \d+ µs, 1048576 B in \d+ µs$/) as string
    expect(all).toContainEqual({ what: `RDMA ${device} loopback`, state: 'ok', found })
    expect(status).toBe(0)
  })

  it('is told of settings that name what is not there, and of calls that are impossible', async () => {
    const { status, all } = await doctor({ PRAAS_IB_DEVICE: 'nosuch', PRAAS_IB_PORT: '77' })
    const settings = all.find(({ what }) => what === 'RDMA settings')
    expect(settings).toMatchObject({ state: 'bad', found: 'PRAAS_IB_DEVICE=nosuch PRAAS_IB_PORT=77' })
    expect(settings?.remedy).toContain(device)
    const loopback = all.find(({ what }) => what === `RDMA ${device} loopback`)
    expect(loopback).toMatchObject({ state: 'bad', found: expect.stringMatching(/^ERR_UPGRADE_FAILED: .*port 77/) })
    expect(loopback?.remedy).toContain('PRAAS_IB_PORT')
    expect(status).toBe(1)
  })
})

describe('a connection', () => {
  interface Way {
    transport: string
    environment: Record<string, string>
  }
  interface Seen {
    transport?: string
    reason?: string
    echoed?: boolean
    code?: string
    message?: string
  }

  /** One after the other, from an IPC namespace whose shared memory cannot be shared, as from another machine. */
  async function takeElsewhere(ways: Way[], environment: Record<string, string>): Promise<Seen[]> {
    const client = fileURLToPath(new URL('client.mjs', import.meta.url))
    const args = [process.execPath, client, started.directory.path, 'plain', JSON.stringify(ways)]
    return JSON.parse((await run(['unshare', '--ipc', ...args], environment)).stdout) as Seen[]
  }

  it('takes RDMA where shared memory is impossible, TCP where RDMA is, too, and says why', async () => {
    const nosuch = { PRAAS_IB_DEVICE: 'nosuch' }
    const ways = [
      { transport: 'auto', environment: {} },
      { transport: 'auto', environment: nosuch },
      { transport: 'verbs', environment: nosuch },
      { transport: 'verbs', environment: { PRAAS_IB_TRAFFIC_CLASS: '300' } },
      { transport: 'verbs', environment: {} },
    ]
    // So little that a connection has its messages and nothing else: payloads travel in pieces.
    const [rdma, tcp, failed, wrong, again] = await takeElsewhere(ways, { PRAAS_IB_MEMORY: String(300 << 10) })
    expect(rdma).toMatchObject({ transport: 'verbs', echoed: true })
    expect(tcp).toMatchObject({ transport: 'tcp', echoed: true })
    expect(tcp?.reason).toMatch(/shm: .*another.*; verbs: there is no RDMA device nosuch/)
    expect(failed).toMatchObject({ code: 'ERR_UPGRADE_FAILED', message: expect.stringContaining('device nosuch') })
    expect(wrong).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(wrong?.message).toContain('PRAAS_IB_TRAFFIC_CLASS')
    expect(again).toMatchObject({ transport: 'verbs', echoed: true })
  })
})

it('a user without rights who may lock 8 MiB has it, too', async () => {
  const folder = temporaryFolder()
  chmodSync(folder, 0o777)
  const program = fileURLToPath(new URL('unprivileged.mjs', import.meta.url))
  const command = [join(packageRoot, 'scripts', 'unprivileged'), process.execPath, program]
  const { stdout } = await run(command, { PRAAS_RUNTIME_DIR: join(folder, 'run') })
  const { uid, ...seen } = JSON.parse(stdout) as { uid: number }
  expect(uid).not.toBe(0)
  expect(seen).toEqual({ transport: 'verbs', wrong: [] })
})
