import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { pinThreads } from './pinning.js'
import { Replies } from './replies.js'
import { sampleAsync, type Peer } from './sampler.js'

/** Copies there and back: what is transferred is lost to its sender. */
export const threads: Peer = {
  name: 'threads',
  title: 'worker_threads postMessage',
  client: 'await',
  concurrent: true,
  missing: async () => undefined,
  open: async () => ({
    sampler: async (options) => {
      const worker = await pinThreads(async () => {
        const started = new Worker(new URL('./threads_echo.js', import.meta.url))
        await once(started, 'online')
        return started
      })
      const replies = new Replies()
      worker.on('message', () => replies.settle())
      const message = new Uint8Array(options.bytes)
      const call = (): Promise<void> => {
        worker.postMessage(message)
        return replies.next()
      }
      return sampleAsync(options, call, async () => {
        await worker.terminate()
      })
    },
    close: async () => undefined,
  }),
}
