/** That the injector does what a seed says, all of it, and tells of what fails. */
import { setTimeout as delay } from 'node:timers/promises'
import { describe, expect, it } from 'vitest'
import { nowMs } from './clock.js'
import { Injector } from './injector.js'
import { disasters, processes } from './plan.js'
import { Random } from './random.js'

/** No OS process has it. */
const nobody = 2 ** 22 + 1
const never = (): boolean => false
const [stopProcess, killAgent, quiet] = disasters.map((_, epoch) => epoch) as [number, number, number]

interface Harm {
  readonly injector: Injector
  readonly notes: string[]
  readonly restarted: string[]
}

function harmed(
  meanPauseMs: number,
  more: { replace?: () => Promise<void>; restart?: () => Promise<void> } = {},
): Harm {
  const [notes, restarted]: [string[], string[]] = [[], []]
  const restart = (id: string): Promise<void> => {
    restarted.push(id)
    return more.restart?.() ?? Promise.resolve()
  }
  const injector = new Injector(
    new Random('a'),
    meanPauseMs,
    { describe: () => Promise.resolve([]), restart },
    { pid: nobody, replace: more.replace ?? (() => Promise.resolve()) },
    { count: 3, pid: () => nobody },
    (text) => notes.push(text),
  )
  return { injector, notes, restarted }
}

describe('an injector', () => {
  it('never leaves out the disaster of an epoch, however rare other faults are', async () => {
    const { injector } = harmed(1e9)
    for (const epoch of [stopProcess, killAgent, quiet]) await injector.run(epoch, nowMs() + 20, never)
    // Nor of one whose time was over by then.
    for (const epoch of [stopProcess, killAgent, quiet]) await injector.run(epoch, nowMs() - 20, never)
    expect([...injector.counts]).toEqual([
      ['stop process', 2],
      ['kill agent', 2],
    ])
  })

  it('stops another process from time to time', async () => {
    const { injector, restarted } = harmed(1e9)
    for (let round = 0; round < 20; round++)
      await injector.run(stopProcess + round * disasters.length, nowMs() + 2, never)
    expect(restarted).toHaveLength(20)
    expect([...new Set(restarted)].sort()).toEqual(processes.map(({ id }) => id).sort())
  })

  it('draws for an epoch what the seed says, however many faults there were in others', async () => {
    const faults = async (...earlier: number[]): Promise<string[]> => {
      const { injector, notes } = harmed(1)
      for (const forMs of earlier) await injector.run(stopProcess, nowMs() + forMs, never)
      notes.length = 0
      await injector.run(quiet, nowMs() + 300, never)
      return notes
    }
    const [one, other] = await Promise.all([faults(), faults(50)])
    const length = Math.min(one.length, other.length)
    expect(length).toBeGreaterThan(0)
    expect(one.slice(0, length)).toEqual(other.slice(0, length))
  })

  it('tells of a disaster that failed when what it has stopped goes on', async () => {
    const replace = (): Promise<void> => Promise.reject(new Error('no agent starts'))
    const restart = (): Promise<void> => Promise.reject(new Error('the process is gone'))
    const failing = harmed(1, { replace, restart })
    await expect(failing.injector.run(stopProcess, nowMs() + 500, never)).rejects.toThrow('the process is gone')
    expect(failing.injector.stops.every(({ toMs }) => toMs < Infinity)).toBe(true)
    const slow = harmed(10, { replace: () => delay(10).then(replace) })
    await expect(slow.injector.run(killAgent, nowMs() + 500, never)).rejects.toThrow('no agent starts')
    expect(slow.injector.stops.every(({ toMs }) => toMs < Infinity)).toBe(true)
  })
})
