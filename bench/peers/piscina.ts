import { fileURLToPath } from 'node:url'
import { pinThreads } from './pinning.js'
import { sampleAsync, type Peer } from './sampler.js'
import { packageMissing } from './service.js'

const load = () => import('piscina')

export const piscina: Peer = {
  name: 'piscina',
  title: 'piscina, one thread',
  client: 'await',
  concurrent: true,
  missing: () => packageMissing(load),
  open: async () => {
    const { Piscina } = await load()
    return {
      sampler: async (options) => {
        const message = new Uint8Array(options.bytes)
        const pool = await pinThreads(async () => {
          const started = new Piscina({
            filename: fileURLToPath(new URL('./piscina_task.js', import.meta.url)),
            minThreads: 1,
            maxThreads: 1,
            idleTimeout: Infinity,
            concurrentTasksPerWorker: options.inFlight,
          })
          await started.run(message)
          return started
        })
        return sampleAsync(
          options,
          () => pool.run(message),
          () => pool.destroy(),
        )
      },
      close: async () => undefined,
    }
  },
}
