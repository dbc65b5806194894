/** A cluster whose wall clock is set forward and back while it works: deadlines and leases count otherwise. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { Confined, obstacle } from '../support/confined.js'
import { failureOf } from '../support/cluster.js'
import { compileLibrary } from '../support/compile.js'
import { sanitized } from '../support/sanitized.js'
import { temporaryFolder } from '../support/temporary.js'

const why = obstacle() ?? (sanitized === undefined ? undefined : `${sanitized}, which is preloaded, too`)
if (why !== undefined) console.log(`jumps of the clock are not tested: ${why}`)

const source = readFileSync(fileURLToPath(new URL('../fixtures/clock_jump.c', import.meta.url)), 'utf8')
const day = 86_400

it.skipIf(why !== undefined)(
  'calls, deadlines, leases and new clients do not notice',
  { timeout: 180_000 },
  async () => {
    const folder = temporaryFolder()
    const library = join(folder, 'clock_jump.so')
    compileLibrary(library, source)
    const offset = join(folder, 'offset')
    const jump = (seconds: number): void => writeFileSync(offset, new BigInt64Array([BigInt(seconds)]), { flag: 'r+' })
    writeFileSync(offset, new BigInt64Array(1))
    const confined = await Confined.start({
      environment: { LD_PRELOAD: library, PRAAS_CLOCK_JUMP: offset },
      options: ['--workers', '2'],
    })
    const cluster = await confined.client()
    const served = await cluster.process('main', { create: false })
    const { pid = 0, workers } = await served.describe()
    for (const each of [pid, ...workers.map((worker) => worker.pid)]) {
      expect(readFileSync(`/proc/${each}/maps`, 'utf8'), 'the clock that jumps').toContain(library)
    }
    const sleep = (ms: number, timeoutMs: number): Promise<unknown> =>
      served.invoke('sleep', ms, { codec: 'json', timeoutMs })

    for (const seconds of [day, -day, 3 * day, 0]) {
      const running = sleep(300, 30_000)
      jump(seconds)
      expect(await running).toBe('slept')
      expect(await failureOf(sleep(60_000, 200))).toMatchObject({ code: 'ERR_INVOCATION_TIMEOUT' })
      await served.state.set('kept', Buffer.from(String(seconds)))
      await using lease = await served.lease({ ttlMs: 60_000, renew: false })
      jump(seconds + 2 * day)
      expect(await lease.invoke('add', { a: 1, b: 2 })).toBe(3)
      jump(seconds)
      const other = await confined.client('tcp')
      const again = await other.process('main', { create: false })
      expect(Buffer.from((await again.state.get('kept')) ?? []).toString()).toBe(String(seconds))
      await other.close()
    }
    await using short = await served.lease({ ttlMs: 5_000, renew: false })
    expect(await short.invoke('add', { a: 1, b: 2 })).toBe(3)
    jump(-2 * day)
    await expect
      .poll(
        () =>
          short.invoke('add', { a: 1, b: 2 }).then(
            () => 'served',
            (error: { code: string }) => error.code,
          ),
        { timeout: 30_000 },
      )
      .toBe('ERR_LEASE_EXPIRED')
  },
)
