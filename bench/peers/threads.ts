import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import type { FunctionName } from '../../src/bench/result.js'
import { moveThreads } from './cores.js'
import { awaited, callsOf, named, sampleCalls, type Peer } from './peer.js'
import { Replies } from './replies.js'

/** Copies there and back: what is transferred is lost to its sender. */
function workerThread(called: FunctionName): Peer {
  const labels = awaited(null, called)
  return {
    ...named('threads', 'worker_threads postMessage', called),
    labels,
    concurrent: called === 'null',
    missing: async () => undefined,
    open: async () => ({
      sampler: async (options) => {
        const worker = await moveThreads(async () => {
          const started = new Worker(new URL('./threads_worker.js', import.meta.url), { workerData: called })
          await once(started, 'online')
          return started
        })
        const replies = new Replies<Uint8Array>()
        worker.on('message', (reply: Uint8Array) => replies.settle(reply))
        const call = callsOf(called, new Uint8Array(options.bytes), (message) => {
          worker.postMessage(message)
          return replies.next()
        })
        return sampleCalls(options, call, async () => void (await worker.terminate()))
      },
      close: async () => undefined,
    }),
  }
}

export const threads = workerThread('null')
export const threadsTouch = workerThread('touch')
