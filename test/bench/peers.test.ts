import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, test } from 'vitest'
import { openExternal } from '../../bench/peers/external.js'
import { compare, summarize, type Result } from '../../bench/peers/results.js'
import { sampleAsync, sampleSync, type Peer } from '../../bench/peers/sampler.js'
import { digits, sizeText } from '../../bench/peers/table.js'
import { temporaryFolder } from '../support/temporary.js'

const run = promisify(execFile)
const peer = (name: string): Peer => ({
  name,
  title: name,
  client: 'await',
  concurrent: true,
  missing: async () => undefined,
  open: async () => Promise.reject(new Error('not opened')),
})
const figures = (p50Ns: number, opsPerSec: number) => ({
  samples: 1,
  p50Ns,
  p99Ns: p50Ns,
  p999Ns: p50Ns,
  minNs: 1,
  opsPerSec,
})

describe('figures', () => {
  test('percentiles are samples of all batches together', () => {
    const batch = (from: number, to: number) => ({
      elapsedNs: 1e9,
      samples: Float64Array.from({ length: to - from + 1 }, (_, index) => to - index),
    })
    expect(summarize([batch(501, 1_000), batch(1, 500)])).toEqual({
      samples: 1_000,
      p50Ns: 500,
      p99Ns: 990,
      p999Ns: 999,
      minNs: 1,
      opsPerSec: 500,
    })
    expect(summarize([{ elapsedNs: 7, samples: Float64Array.of(7) }])).toMatchObject({ p50Ns: 7, p999Ns: 7, minNs: 7 })
  })

  test('a peer is compared by time, and by rate when several operations are in flight', () => {
    const ours = [{ peer: peer('ours'), figures: figures(10, 300) }]
    const theirs = [{ peer: peer('theirs'), figures: figures(40, 100) }]
    expect(compare(64, 1, ours, theirs).map(({ fasterBy }) => fasterBy)).toEqual([{}, { ours: 4 }])
    expect(compare(64, 8, ours, theirs).map(({ fasterBy }) => fasterBy)).toEqual([{}, { ours: 3 }])
  })

  test('numbers and sizes are readable', () => {
    expect([0.01234, 1.5, 99.96, 12_345.6].map(digits)).toEqual(['0.0123', '1.5', '100', '12,346'])
    expect([1, 64, 1_500, 4_096, 16 * 2 ** 20].map(sizeText)).toEqual(['1 B', '64 B', '1500 B', '4 KiB', '16 MiB'])
  })
})

describe('samplers', () => {
  test('run a warm-up, then as many operations as asked, and no more at a time than allowed', async () => {
    let calls = 0
    let running = 0
    let most = 0
    const close = async (): Promise<void> => undefined
    const call = async (): Promise<void> => {
      calls++
      most = Math.max(most, ++running)
      await new Promise(setImmediate)
      running--
    }
    const batch = await sampleAsync({ bytes: 64, inFlight: 4 }, call, close).sample(10)
    expect(batch.samples).toHaveLength(10)
    expect(batch.samples.every((ns) => ns > 0)).toBe(true)
    expect({ calls, most, running }).toEqual({ calls: 110, most: 4, running: 0 })

    calls = 0
    const sync = await sampleSync(2 ** 20, () => calls++, close).sample(20)
    expect(calls).toBe(22)
    const sum = sync.samples.reduce((a, b) => a + b)
    expect(sum).toBeCloseTo(sync.elapsedNs, 0)
  })

  test('may be programs', async () => {
    // Says ready, then answers each COUNT with 1 … COUNT nanoseconds.
    const program = `
      process.stdout.write('ready\\n')
      require('readline').createInterface({ input: process.stdin }).on('line', (line) => {
        const count = Number(line)
        const numbers = [count, 1000, ...Array.from({ length: count }, (_, index) => index + 1)]
        process.stdout.write(Buffer.from(BigUint64Array.from(numbers, BigInt).buffer))
      })`
    const sampler = await openExternal(process.execPath, ['-e', program])
    for (const count of [3, 100_000]) {
      const batch = await sampler.sample(count)
      expect(batch.elapsedNs).toBe(1_000)
      expect(batch.samples).toEqual(Float64Array.from({ length: count }, (_, index) => index + 1))
    }
    await sampler.close()
  })

  test('a program that ends says why', async () => {
    const failing = openExternal(process.execPath, ['-e', 'console.error("no device"); process.exitCode = 1'])
    await expect(failing).rejects.toThrow('no device')
  })
})

describe('the command', () => {
  test('measures praas and peers that need no packages', async () => {
    const file = join(temporaryFolder(), 'peers.json')
    const ours = ['tcp-warm-sync', 'tcp-hot-await', 'shm-hot-sync', 'shm-hot-sync-allocated']
    const chosen = ['--subjects', ours.join(','), '--peers', 'net,threads,ipc-advanced', '--sizes', '64,1MiB']
    const args = ['--no-install', ...chosen, '--samples', '40', '--rounds', '2']
    const { stdout } = await run('scripts/bench-peers', [...args, '--json', file])
    expect(stdout).toContain('node:net raw echo')
    const { versions, results } = JSON.parse(await readFile(file, 'utf8')) as {
      readonly versions: Record<string, string>
      readonly results: Result[]
    }
    expect(versions).toMatchObject({ node: process.versions.node })
    const subjects = results.filter(({ title }) => title.startsWith('praas'))
    expect(subjects).toHaveLength(2 * ours.length)
    expect(results).toHaveLength(2 * (ours.length + 3))
    for (const result of results) {
      expect(result.samples).toBe(result.bytes === 64 ? 40 : 4)
      expect(result.minNs).toBeGreaterThan(0)
      expect(result.p50Ns).toBeGreaterThanOrEqual(result.minNs)
      expect(result.p999Ns).toBeGreaterThanOrEqual(result.p50Ns)
      for (const [name, ratio] of Object.entries(result.fasterBy)) {
        const subject = subjects.find((one) => one.peer === name && one.bytes === result.bytes)
        expect(ratio).toBe(result.p50Ns / (subject?.p50Ns ?? NaN))
      }
    }
  })

  test('names an option that it does not understand', async () => {
    const failure = run('scripts/bench-peers', ['--no-install', '--sizes', '4KB'])
    await expect(failure).rejects.toThrow('--sizes: expected sizes such as 64, 4KiB or 1MiB, received "4KB"')
  })
})
