import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { promisify } from 'node:util'
import { describe, expect, onTestFinished, test } from 'vitest'
import { awaited, callsOf, floorsOfPeer, type Peer } from '../../bench/peers/peer.js'
import { compareAll, type PeerReport } from '../../bench/peers/results.js'
import { digits } from '../../bench/peers/table.js'
import type { FunctionName } from '../../src/bench/result.js'
import { childrenOf } from '../support/processes.js'
import { temporaryFolder } from '../support/temporary.js'

const run = promisify(execFile)
const peer = (name: string, called: FunctionName = 'null'): Peer => ({
  ...{ name, title: name, labels: awaited('tcp', called), concurrent: true },
  missing: async () => undefined,
  open: async () => Promise.reject(new Error('not opened')),
})
const summary = (p50Ns: number, opsPerSec: number) => ({
  ...{ samples: 1, p50Ns, p99Ns: p50Ns, p999Ns: p50Ns, minNs: 1, opsPerSec },
})

describe('results', () => {
  const floor = { name: 'tcp', p50Ns: 5, opsPerSec: 600 }
  const ours = [
    { peer: peer('ours'), summary: summary(10, 300), floor },
    { peer: peer('ours-touch', 'touch'), summary: summary(20, 200), floor },
  ]
  const theirs = [{ peer: peer('theirs'), summary: summary(40, 100), floor: undefined }]

  test('compare times, of the same function only, with praas and with the floor', () => {
    const results = compareAll({ bytes: 64, inFlight: 1 }, ours, theirs)
    expect(results.map(({ timesSlower }) => timesSlower)).toEqual([{}, {}, { ours: 4 }])
    expect(results.map(({ ratio }) => ratio)).toEqual([2, 4, null])
    expect(results[0]).toMatchObject({ suite: 'peers', peer: 'ours', transport: 'tcp', floor: 'tcp', floorP50Ns: 5 })
  })

  test('compare rates when several operations are in flight', () => {
    const results = compareAll({ bytes: 64, inFlight: 8 }, ours, theirs)
    expect(results.map(({ timesSlower }) => timesSlower)).toEqual([{}, {}, { ours: 3 }])
    expect(results.map(({ ratio }) => ratio)).toEqual([2, 3, null])
  })

  test('floors carry messages as the peer does', () => {
    const size = { bytes: 64, inFlight: 2 }
    expect(floorsOfPeer(awaited('unix'), size)).toEqual([{ name: 'unix', bytes: 64, inFlight: 2, touch: false }])
    expect(floorsOfPeer({ ...awaited('tcp', 'touch'), mode: 'hot' }, size)).toMatchObject([
      { name: 'tcp-spin', touch: true },
    ])
    expect(floorsOfPeer(awaited(null), size)).toEqual([])
  })

  test('numbers are readable', () => {
    expect([0.01234, 1.5, 99.96, 12_345.6, null].map(digits)).toEqual(['0.0123', '1.5', '100', '12,346', ''])
  })
})

test('calls of touch write their message, and every answer has its size', async () => {
  const message = new Uint8Array(3)
  const sent: string[] = []
  const echo = async (bytes: Uint8Array): Promise<Uint8Array> => {
    sent.push(String(bytes))
    return bytes
  }
  for (const called of ['null', 'touch'] as const) {
    const call = callsOf(called, message, echo)
    await call()
    await call()
    await expect(callsOf(called, message, async () => new Uint8Array(2))()).rejects.toThrow('a reply of another size')
  }
  expect(sent).toEqual(['0,0,0', '0,0,0', '1,1,1', '2,2,2'])
  const strange = callsOf('touch', message, async () => Uint8Array.of(1, 0xff, 1))
  await expect(strange()).rejects.toThrow('bytes that the input had not')
})

describe('the command', () => {
  test('measures praas and peers that need no packages', async () => {
    const file = join(temporaryFolder(), 'peers.json')
    const ours = ['tcp-warm-sync', 'tcp-hot-await', 'shm-hot-sync', 'shm-hot-sync-allocated', 'shm-hot-await-touch']
    const theirs = ['net', 'threads', 'ipc-advanced', 'net-touch', 'threads-touch']
    const chosen = ['--subjects', ours.join(','), '--peers', theirs.join(','), '--sizes', '64,1MiB', '--pin', '0,0']
    const args = ['--no-install', ...chosen, '--samples', '40', '--rounds', '2']
    const { stdout } = await run('scripts/bench-peers', [...args, '--json', file])
    expect(stdout).toContain('node:net raw echo, touch')
    expect(stdout).toContain('how many times slower')
    const { machine, versions, results } = JSON.parse(await readFile(file, 'utf8')) as PeerReport
    expect(versions).toMatchObject({ node: process.version })
    expect(machine.pinning).toEqual({ client: 0, worker: 0, host: 0 })
    const subjects = results.filter(({ title }) => title.startsWith('praas'))
    expect(subjects.map((result) => result.peer)).toEqual([...ours, ...ours])
    expect(results).toHaveLength(2 * (ours.length + theirs.length))
    for (const result of results) {
      expect(result.samples).toBe(result.bytes === 64 ? 40 : 4)
      expect(result.minNs).toBeGreaterThan(0)
      expect(result.p50Ns).toBeGreaterThanOrEqual(result.minNs)
      expect(result.p999Ns).toBeGreaterThanOrEqual(result.p50Ns)
      if (result.floorP50Ns !== null) expect(result.ratio).toBe(result.p50Ns / result.floorP50Ns)
      for (const [name, ratio] of Object.entries(result.timesSlower)) {
        const subject = subjects.find((one) => one.peer === name && one.bytes === result.bytes)
        expect(subject?.function).toBe(result.function)
        expect(ratio).toBe(result.p50Ns / (subject?.p50Ns ?? NaN))
      }
    }
    const of = (name: string) => results.find((result) => result.peer === name && result.bytes === 2 ** 20)
    expect(of('tcp-warm-sync')).toMatchObject({
      ...{ transport: 'tcp', path: 'host', mode: 'warm', kind: 'ts', function: 'null', call: 'sync' },
      ...{ client: 'invokeSync', concurrency: 1, floor: 'tcp+mq(64 B)' },
    })
    expect(of('net-touch')).toMatchObject({ function: 'touch', call: 'async', client: 'await', floor: 'tcp' })
    expect(Object.keys(of('net-touch')?.timesSlower ?? {})).toEqual(['shm-hot-await-touch'])
    expect(of('threads')).toMatchObject({ transport: null, floor: null, ratio: null })
  })

  test('measures many calls at a time, and leaves out what has one', async () => {
    const chosen = ['--subjects', 'tcp-warm-sync,tcp-warm-await', '--peers', 'net,net-touch', '--sizes', '64']
    const args = ['--no-install', ...chosen, '--samples', '40', '--rounds', '2', '--in-flight', '8']
    const { stdout } = await run('scripts/bench-peers', args)
    expect(stdout).toContain('left out: tcp-warm-sync: one operation at a time only')
    expect(stdout).toContain('left out: net-touch: one operation at a time only')
    expect(stdout).toMatch(/node:net raw echo .* k\/s/)
  })

  test('ends with a reason when a server ends', async () => {
    // Short batches: the end of a server is noticed between those that block.
    const chosen = ['--peers', 'net', '--subjects', 'tcp-warm-sync', '--sizes', '64']
    chosen.push('--samples', '1000000', '--rounds', '10000')
    const child = spawn('scripts/bench-peers', ['--no-install', ...chosen], { stdio: ['ignore', 'ignore', 'pipe'] })
    onTestFinished(() => void child.kill('SIGKILL'))
    const said = text(child.stderr)
    const exit = once(child, 'exit')
    const running = (command: string): number | undefined =>
      childrenOf(child.pid!).find((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(command))
    // Floors are started when all servers are there.
    await expect.poll(() => running('praas-floor'), { timeout: 60_000 }).toBeDefined()
    process.kill(running('server.js\0net')!, 'SIGKILL')
    expect(await exit).toEqual([1, null])
    expect(await said).toBe('bench-peers: the server of net has ended unasked: SIGKILL\n')
  })

  test('names an option that it does not understand', async () => {
    const failure = run('scripts/bench-peers', ['--no-install', '--sizes', '4 parsecs'])
    await expect(failure).rejects.toThrow('--sizes is "4 parsecs"')
  })
})
