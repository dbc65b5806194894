/** A bundle that is damaged after it was deployed: its workers say so, nobody else notices, and deploying again mends it. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { PraasError } from '../../src/errors.js'
import { clusterForTest, fixtureApp, isRunning, untilGone } from '../support/cluster.js'
import { givenSeed, mutated, seededNumbers } from '../support/mutations.js'

const seed = givenSeed()

it(`damaged bundles (seed ${seed})`, { timeout: 300_000 }, async () => {
  const number = seededNumbers(seed)
  const { cluster, directory } = await clusterForTest()
  const served = await cluster.process('damaged')
  const other = await cluster.process('other')
  const add = { a: 1, b: 2 }
  expect([await served.invoke('add', add), await other.invoke('add', add)]).toEqual([3, 3])
  await served.state.set('kept', Buffer.from('kept'))
  const agents = join(directory.path, 'agents')
  const file = readdirSync(agents, { recursive: true, encoding: 'utf8' }).find((path) => path.endsWith('.mjs')) ?? ''
  const bundle = join(agents, file)
  const whole = readFileSync(bundle)

  const killWorkers = async (): Promise<void> => {
    const { workers } = (await cluster.processes()).find(({ id }) => id === served.id) ?? { workers: [] }
    for (const { pid } of workers) {
      // It may have ended by itself.
      if (isRunning(pid)) process.kill(pid, 'SIGKILL')
      await untilGone(pid)
    }
  }
  const call = (): Promise<unknown> =>
    served.invoke('add', add, { timeoutMs: 3_000 }).catch((error: unknown) => {
      expect(error).toBeInstanceOf(PraasError)
      return String(error)
    })

  for (let round = 0; round < 6; round += 1) {
    writeFileSync(bundle, round % 2 === 0 ? whole.subarray(0, number(whole.length)) : mutated(whole, number))
    await killWorkers()
    await call()
    expect(await other.invoke('add', add)).toBe(3)
  }

  writeFileSync(bundle, 'export const add = (')
  await killWorkers()
  await expect.poll(call, { timeout: 60_000 }).toMatch(/cannot load .*app.ts/)
  await cluster.deploy(fixtureApp)
  expect(readFileSync(bundle).equals(whole)).toBe(true)
  await expect.poll(call, { timeout: 60_000 }).toBe(3)
  expect(Buffer.from((await served.state.get('kept')) ?? []).toString()).toBe('kept')
})
