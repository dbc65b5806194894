/** praas-bench-client and the native benchmark functions, against a real process. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { DirectoryControl } from '../../src/client/directory_control.js'
import type { Process } from '../../src/client/process.js'
import type { Endpoint } from '../../src/control.js'
import { packageRoot } from '../../src/package.js'
import { startCluster, type TestCluster } from '../support/cluster.js'
import { workerPids } from '../support/native.js'
import { SamplerProgram } from '../support/sampler.js'

let started: TestCluster
let served: Process
let target: Target
beforeAll(async () => {
  started = await startCluster({ app: join(packageRoot, 'build', 'Release', 'praas-bench-functions.so'), hotMs: 0 })
  served = await started.cluster.process('bench')
  target = await targetOf('bench')
})
afterAll(() => started.close())

interface Target extends Endpoint {
  readonly id: string
}

async function targetOf(id: string): Promise<Target> {
  const control = new DirectoryControl(started.directory.path, undefined)
  const { endpoint } = await control.find(id, { timeoutMs: 10_000 })
  await control.close()
  return { id, ...endpoint }
}

function client(line: string, { id, host, port, token } = target): SamplerProgram {
  const args = ['--host', host, '--port', String(port), '--process', id, ...line.split(' ')]
  return new SamplerProgram('praas-bench-client', args, { PRAAS_BENCH_TOKEN: token })
}

describe.each(['shm', 'tcp'])('%s', (transport) => {
  it.each([
    '--function null --bytes 1',
    '--function null --bytes 64',
    '--function null --bytes 64 --hot-us 1000',
    '--function null --bytes 64 --in-flight 64',
    '--function null --bytes 64 --allocate',
    '--function null --bytes 3000001 --allocate --in-flight 3',
    '--function null --bytes 3000001',
    '--function echo --bytes 64 --in-flight 7',
    '--function call_null --bytes 4096',
    '--function discard --bytes 64 --no-result',
    '--function discard --bytes 3000001 --no-result',
    '--function discard --bytes 3000001 --no-result --allocate --in-flight 3',
    '--function touch --bytes 64 --touch',
    '--function touch --bytes 70000 --touch --in-flight 5',
    '--function touch --bytes 3000001 --touch --allocate',
    '--function touch --bytes 70000 --touch --allocate --in-flight 5 --hot-us 100',
    '--function null --bytes 64 --pin 0,0',
  ])('%s', async (line) => {
    const program = await client(`--transport ${transport} ${line}`).ready()
    for (const count of [1, 100]) {
      const { elapsedNs, samples } = await program.batch(count)
      expect(samples.every((sample) => sample > 0n)).toBe(true)
      const sum = samples.reduce((total, sample) => total + sample, 0n)
      if (line.includes('--in-flight')) expect(sum).toBeGreaterThanOrEqual(elapsedNs)
      else expect(sum).toBe(elapsedNs)
    }
    expect(await program.end()).toEqual({ code: 0, signal: null, stderr: '' })
  })
})

it('touch reads all bytes and writes all', async () => {
  const input = Uint8Array.from({ length: 100 }, (_, index) => index)
  // It adds 64-bit words as long as there are four of them, then bytes; a result has the lowest byte of the sum.
  const sum = input.reduce((total, byte, index) => (index < 96 && index % 8 > 0 ? total : total + byte), 0)
  expect(await served.invoke('touch', input)).toEqual(new Uint8Array(100).fill(sum))
})

describe('errors', () => {
  it.each([
    ['--transport tcp --function nothing --bytes 64', 1, /function nothing: /],
    ['--transport tcp --function null --bytes 64 --in-flight 4096', 1, /--in-flight is 4096; this connection takes /],
    ['--transport shm --function null --bytes 64 --in-flight 257', 1, /--in-flight is 257; this connection takes 256/],
    ['--transport rdma --function null --bytes 64', 2, /--transport is "rdma"; expected shm, tcp or verbs/],
    ['--transport tcp --bytes 64', 2, /--function is missing/],
    ['--transport tcp --function null', 2, /--bytes is missing/],
    ['--transport tcp --function null --bytes 64 --no-result --touch', 2, /--no-result has none/],
    ['--transport tcp --function null --bytes 64 --lease -2', 2, /--lease is "-2"/],
    ['--transport tcp --function null --bytes 64 --lease-starts 1', 2, /--lease-starts needs --lease/],
    ['--transport tcp --function null --bytes x', 2, /--bytes is "x"; expected 1 \.\.\. 1073741824/],
    ['--transport tcp --function null --bytes 64 --pin 1', 2, /--pin is "1"/],
    ['--transport tcp --function null --bytes 64 extra', 2, /unexpected argument "extra"/],
  ])('%s', async (line, status, reason) => {
    const { code, stderr } = await client(line).end()
    expect(stderr).toMatch(reason)
    expect(code).toBe(status)
  })

  it('needs a token, and the right one', async () => {
    const line = '--transport tcp --function null --bytes 64'
    const without = await client(line, { ...target, token: '' }).end()
    expect(without).toMatchObject({ code: 2, stderr: expect.stringContaining('PRAAS_BENCH_TOKEN') })
    const wrong = await client(line, { ...target, token: 'wrong' }).end()
    expect(wrong).toMatchObject({ code: 1, stderr: expect.stringMatching(/^praas-bench-client: connect: .*token/) })
  })

  it('a result where there should be none', async () => {
    const program = await client('--transport tcp --function null --bytes 64 --no-result').ready()
    program.child.stdin.write('1\n')
    const { code, stderr } = await program.ending
    expect(stderr).toMatch(/null returned 64 bytes instead of 0/)
    expect(code).toBe(1)
  })

  it.each(['shm', 'tcp'])('%s: says when the process ends', async (transport) => {
    const other = await started.cluster.process('other')
    const program = await client(`--transport ${transport} --function null --bytes 64`, await targetOf('other')).ready()
    await program.batch(10)
    await other.stop()
    program.child.stdin.write('10\n')
    const { code, stderr } = await program.ending
    expect(stderr).toMatch(/^praas-bench-client: (call of null|invoke): /)
    expect(code).toBe(1)
  })

  it.each(['shm', 'tcp'])('%s: a batch that does not end meets its deadline', async (transport) => {
    const program = await client(`--transport ${transport} --function null --bytes 64 --deadline-s 1`).ready()
    const { pid } = await served.describe()
    const workers = await workerPids(served)
    for (const each of [pid!, ...workers]) process.kill(each, 'SIGSTOP')
    onTestFinished(() => {
      for (const each of [pid!, ...workers]) process.kill(each, 'SIGCONT')
    })
    program.child.stdin.write('10\n')
    const { code, stderr } = await program.ending
    expect(stderr).toMatch(/^praas-bench-client: call of null: no answer before the deadline/)
    expect(code).toBe(1)
  })
})
