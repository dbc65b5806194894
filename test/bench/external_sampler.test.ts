import { describe, expect, it } from 'vitest'
import { ExternalSampler } from '../../src/bench/external_sampler.js'
import { closeFloor, floorsOfCall, floorsOfNested, floorsOfThroughput, openFloor } from '../../src/bench/floors.js'
import { benchProgram } from '../../src/bench/programs.js'
import { startingNode } from '../../src/bench/start_node.js'
import { failureOf } from '../support/cluster.js'

const program = benchProgram('praas-floor')

describe('a program that samples', () => {
  it('gives batches as often as asked', async () => {
    await using mq = await ExternalSampler.start({ program, args: ['mq', '--bytes', '64'] })
    for (const count of [1, 100, 5_000]) {
      const { elapsedNs, timesNs } = await mq.run(count)
      expect(timesNs).toHaveLength(count)
      expect(timesNs.every((time) => time > 0)).toBe(true)
      expect(elapsedNs).toBeGreaterThan(0)
    }
  })

  it('says why it cannot', async () => {
    const error = await failureOf(ExternalSampler.start({ program, args: ['mq', '--bytes', '1000000'] }))
    expect(error.code).toBe('ERR_UNSUPPORTED')
    expect(error.message).toMatch(/^praas-floor mq --bytes 1000000 ended with 2: praas-floor: mq carries messages/)
    const missing = await failureOf(ExternalSampler.start({ program: '/nowhere/praas-floor', args: [] }))
    expect(missing.message).toMatch(/cannot be started: .*ENOENT/)
    const silent = await failureOf(ExternalSampler.start({ program: 'true', args: [] }))
    expect(silent.message).toMatch(/true ended with 0/)
    const other = await failureOf(ExternalSampler.start({ program: 'echo', args: ['something'] }))
    expect(other.message).toMatch(/said "someth" instead of "ready"/)
  })

  it('fails a batch when it ends', async () => {
    // Says it is ready, and takes no orders.
    const args = ['-c', 'echo ready; read -r line; echo "no such luck" >&2; exit 3']
    await using shell = await ExternalSampler.start({ program: 'sh', args })
    expect((await failureOf(shell.run(1))).message).toMatch(/ended with 3: no such luck/)
  })
})

describe('floors', () => {
  const names = (specs: readonly { name: string; bytes: number }[]): string[] =>
    specs.map(({ name, bytes }) => `${name} ${bytes}`)

  it.each([
    ['shm', 'hot', 'null', 64, ['ring 64']],
    ['shm', 'hot', 'null', 4_096, ['ring 4096']],
    ['shm', 'hot', 'null', 65_536, ['ring 64']],
    ['shm', 'hot', 'touch', 65_536, ['ring 65536']],
    ['shm', 'warm', 'null', 65_536, ['mq 64']],
    ['shm', 'warm', 'touch', 65_536, ['futex 65536']],
    ['tcp', 'hot', 'null', 65_536, ['tcp-spin 65536']],
    ['tcp', 'warm', 'null', 4_096, ['tcp 4096', 'mq 4096']],
    ['tcp', 'warm', 'touch', 65_536, ['tcp 65536', 'mq 64']],
    ['verbs', 'hot', 'null', 64, ['verbs 64']],
    ['verbs', 'hot', 'touch', 65_536, ['verbs 65536']],
    ['verbs', 'warm', 'null', 4_096, ['verbs-sleep 4096', 'mq 4096']],
  ] as const)('of %s, %s, %s of %i bytes', (transport, mode, name, bytes, expected) => {
    expect(names(floorsOfCall({ path: 'host', transport, mode, function: name, bytes }))).toEqual(expected)
  })

  it.each([
    ['shm', 'hot', 'null', 65_536, ['ring 64']],
    ['shm', 'warm', 'null', 64, ['futex 64']],
    ['shm', 'warm', 'null', 65_536, ['futex 64']],
    ['shm', 'warm', 'touch', 65_536, ['futex 65536']],
    ['tcp', 'hot', 'null', 65_536, ['tcp-spin 65536']],
    ['tcp', 'warm', 'null', 4_096, ['tcp 4096']],
    ['verbs', 'warm', 'null', 4_096, ['verbs-sleep 4096']],
  ] as const)('of a leased worker, %s, %s, %s of %i bytes', (transport, mode, name, bytes, expected) => {
    expect(names(floorsOfCall({ path: 'lease', transport, mode, function: name, bytes }))).toEqual(expected)
  })

  it('of inputs that have no result are acknowledged', () => {
    const question = { path: 'lease', function: 'discard', bytes: 2 ** 20 } as const
    expect(floorsOfCall({ ...question, transport: 'tcp', mode: 'hot' })).toMatchObject([
      { name: 'tcp-spin', bytes: 2 ** 20, answerBytes: 1 },
    ])
    expect(floorsOfCall({ ...question, transport: 'shm', mode: 'warm' })).toMatchObject([
      { name: 'futex', bytes: 64, answerBytes: 1 },
    ])
  })

  it('of nested calls and of many at a time', () => {
    expect(names(floorsOfNested('warm', 2 ** 20))).toEqual(['mq 64'])
    expect(names(floorsOfNested('hot', 64))).toEqual(['ring 64'])
    expect(floorsOfThroughput('tcp', 64, 32)).toEqual([{ name: 'tcp', bytes: 64, inFlight: 32 }])
    // What several chunks of a ring would carry is not moved by calls either.
    expect(floorsOfThroughput('shm', 65_536, 32)).toEqual([{ name: 'ring', bytes: 64, inFlight: 32 }])
  })

  it('are there', async () => {
    const specs = [
      ...floorsOfCall({ path: 'host', transport: 'tcp', mode: 'warm', function: 'touch', bytes: 65_536 }),
      ...floorsOfCall({ path: 'lease', transport: 'tcp', mode: 'hot', function: 'discard', bytes: 65_536 }),
      ...floorsOfThroughput('tcp', 65_536, 8),
      ...floorsOfThroughput('shm', 65_536, 8),
    ]
    const parts = await openFloor(specs, 65_536, { client: 0, worker: 0, host: 0 })
    try {
      expect(parts.map(({ name }) => name)).toEqual(['tcp', 'mq(64 B)', 'tcp-spin', 'tcp', 'ring(64 B)'])
      for (const { sampler } of parts) expect((await sampler.run(3)).timesNs).toHaveLength(3)
    } finally {
      await closeFloor(parts)
    }
  })

  it('of starting Node', async () => {
    await using node = startingNode()
    expect((await node.run(1)).timesNs).toHaveLength(1)
  })
})
