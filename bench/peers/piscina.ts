import { fileURLToPath } from 'node:url'
import type { FunctionName } from '../../src/bench/result.js'
import { moveThreads } from './cores.js'
import { awaited, callsOf, named, sampleCalls, type Peer } from './peer.js'
import { packageMissing } from './service.js'

const load = () => import('piscina')

function pool(called: FunctionName): Peer {
  const labels = awaited(null, called)
  return {
    ...named('piscina', 'piscina, one thread', called),
    labels,
    concurrent: called === 'null',
    missing: () => packageMissing(load),
    open: async () => {
      const { Piscina } = await load()
      return {
        sampler: async (options) => {
          const task = { name: called }
          const started = await moveThreads(async () => {
            const pool = new Piscina({
              filename: fileURLToPath(new URL('./piscina_tasks.js', import.meta.url)),
              minThreads: 1,
              maxThreads: 1,
              idleTimeout: Infinity,
              concurrentTasksPerWorker: options.inFlight,
            })
            await pool.run(new Uint8Array(1), task)
            return pool
          })
          const call = callsOf(called, new Uint8Array(options.bytes), (message) => started.run(message, task))
          return sampleCalls(options, call, () => started.destroy())
        },
        close: async () => undefined,
      }
    },
  }
}

export const piscina = pool('null')
export const piscinaTouch = pool('touch')
