import { execFileSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { refuseDebugBuilds } from '../../src/bench/machine.js'
import { Recorder, summaryOf } from '../../src/bench/recorder.js'
import type { Labels } from '../../src/bench/result.js'
import { floorOf, measureGroup } from '../../src/bench/runner.js'
import {
  awaitingSampler,
  blockingSampler,
  concurrentSampler,
  generatorSampler,
  sampler,
  type Sampler,
} from '../../src/bench/sampler.js'
import { capabilities } from '../../src/capabilities.js'
import { packageRoot } from '../../src/package.js'
import { failureOf } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

const labels: Labels = {
  ...{ suite: 'invoke', transport: 'shm', path: 'host', mode: 'hot', kind: 'ts', function: 'null', call: 'sync' },
  ...{ client: 'invokeSync', bytes: 64, concurrency: 1 },
}
const warmUp = (count: number): number => count

describe('measureGroup', () => {
  it('takes turns, and compares with the sum of the parts of the floor', async () => {
    const turns: string[] = []
    const constant = (name: string, ns: number): Sampler =>
      sampler({}, async (count) => {
        turns.push(name)
        return { elapsedNs: ns * count, timesNs: new Float64Array(count).fill(ns) }
      })
    const announced: string[] = []
    const [first, second] = await measureGroup(
      {
        subjects: [
          { labels, sampler: constant('a', 300) },
          { labels: { ...labels, client: 'await invoke' }, sampler: constant('b', 600) },
        ],
        floor: [
          { name: 'tcp', sampler: constant('tcp', 100) },
          { name: 'mq', sampler: constant('mq', 50) },
        ],
        ...{ perRound: 10, rounds: 2 },
      },
      (what) => announced.push(what),
    )
    // The first round is not recorded.
    expect(turns).toEqual(['a', 'b', 'tcp', 'mq', 'a', 'b', 'tcp', 'mq', 'a', 'b', 'tcp', 'mq'])
    expect(announced).toHaveLength(8)
    expect(first).toMatchObject({
      ...labels,
      samples: 20,
      p50Ns: 300,
      minNs: 300,
      floor: 'tcp+mq',
      floorP50Ns: 150,
      ratio: 2,
    })
    expect(first?.opsPerSec).toBeCloseTo(1e9 / 300)
    expect(first?.floorOpsPerSec).toBeCloseTo(1e9 / 150)
    expect(second).toMatchObject({ client: 'await invoke', ratio: 4 })
  })

  it('compares rates the other way round, and nothing without a floor', async () => {
    const constant = (ns: number): Sampler =>
      sampler({}, async (count) => ({ elapsedNs: ns * count, timesNs: new Float64Array(count).fill(9) }))
    const subjects = [{ labels, sampler: constant(400) }]
    const group = { subjects, floor: [{ name: 'tcp', sampler: constant(100) }], perRound: 1, rounds: 1 }
    expect((await measureGroup({ ...group, compare: 'rates' }))[0]?.ratio).toBeCloseTo(4)
    const [alone] = await measureGroup({ ...group, floor: [] })
    expect(alone).toMatchObject({ floor: null, floorP50Ns: null, floorOpsPerSec: null, ratio: null })
  })

  it('lets a sampler come to rest before the next', async () => {
    let busy = false
    const hot = sampler({ quietMs: 30 }, async () => {
      busy = true
      void delay(10).then(() => (busy = false))
      return { elapsedNs: 1, timesNs: Float64Array.of(1) }
    })
    const floor = sampler({}, async () => {
      expect(busy).toBe(false)
      return { elapsedNs: 1, timesNs: Float64Array.of(1) }
    })
    const group = {
      subjects: [{ labels, sampler: hot }],
      floor: [{ name: 'ring', sampler: floor }],
      perRound: 1,
      rounds: 3,
    }
    expect(await measureGroup(group)).toHaveLength(1)
  })
})

describe('samplers', () => {
  it.each([
    ['blocking', (done: () => void) => blockingSampler(done, { warmUp })],
    ['awaiting', (done: () => void) => awaitingSampler(async () => done(), { warmUp })],
    ['concurrent', (done: () => void) => concurrentSampler(async () => done(), 3, { warmUp })],
    [
      'generating',
      (done: () => void) =>
        generatorSampler(
          async function* (inputs) {
            for (const input of inputs) {
              done()
              yield input
            }
          },
          { warmUp },
        ),
    ],
  ])('%s: records what was asked for, after the warm-up', async (_, make) => {
    let operations = 0
    await using measured = make(() => operations++)
    const { elapsedNs, timesNs } = await measured.run(7)
    expect(operations).toBe(14)
    expect(timesNs).toHaveLength(7)
    expect(timesNs.every((time) => time >= 0)).toBe(true)
    expect(elapsedNs).toBeGreaterThan(0)
  })

  it('concurrent: as many at a time as asked for', async () => {
    let [running, most] = [0, 0]
    const operation = async (): Promise<void> => {
      most = Math.max(most, ++running)
      await delay(1)
      running--
    }
    await using measured = concurrentSampler(operation, 4, { warmUp: () => 0 })
    await measured.run(20)
    expect(most).toBe(4)
  })
})

describe('figures', () => {
  it('percentiles to three digits, exact minimum and rate', () => {
    const recorder = new Recorder()
    recorder.add({ elapsedNs: 1e6, timesNs: Float64Array.from({ length: 1_000 }, (_, index) => 1_001 + index) })
    const { samples, p50Ns, p99Ns, p999Ns, minNs, opsPerSec } = recorder.summary()
    expect([samples, minNs, opsPerSec]).toEqual([1_000, 1_001, 1e6])
    expect(p50Ns / 1_500).toBeCloseTo(1, 2)
    expect(p99Ns / 1_990).toBeCloseTo(1, 2)
    expect(p999Ns / 1_999).toBeCloseTo(1, 2)
  })

  it('of fractions of a nanosecond', () => {
    expect(summaryOf([0.3, 0.1, 0.2])).toMatchObject({ samples: 3, p50Ns: 0.2, minNs: 0.1, opsPerSec: 5e9 })
    expect(floorOf([])).toBeUndefined()
  })
})

describe('debug builds are refused', () => {
  it('the addon', async () => {
    await refuseDebugBuilds()
    const error = await failureOf(refuseDebugBuilds({ ...capabilities(), debug: true }))
    expect(error).toMatchObject({ code: 'ERR_UNSUPPORTED' })
    expect(error.message).toMatch(/^the native addon .* is a debug build/)
  })

  it.each(['PRAAS_HOST', 'PRAAS_NATIVE_WORKER'])('what %s names', async (variable) => {
    const program = join(temporaryFolder(), 'program')
    // Only the --version of such a program: a whole debug build takes minutes.
    const source = `#include "base/build.h"\n#include <cstdio>\nint main() { std::printf("praas 1%s\\n", praas::kBuildNote); }`
    const compile = (...flags: string[]): void => {
      const args = ['-std=c++20', '-I', join(packageRoot, 'native'), '-x', 'c++', '-', '-o', program, ...flags]
      execFileSync('g++', args, { input: source })
    }
    vi.stubEnv(variable, program)
    onTestFinished(() => void vi.unstubAllEnvs())
    compile('-DNDEBUG')
    await refuseDebugBuilds()
    compile()
    const error = await failureOf(refuseDebugBuilds())
    expect(error).toMatchObject({ code: 'ERR_UNSUPPORTED' })
    expect(error.message).toContain(`${program} is a debug build`)
    rmSync(program)
    expect((await failureOf(refuseDebugBuilds())).message).toContain(`${program} does not tell its version`)
  })
})
