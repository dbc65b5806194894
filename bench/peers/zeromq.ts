import type { FunctionName } from '../../src/bench/result.js'
import { answerOf } from './answers.js'
import { awaited, callsOf, named, sampleCalls, type Peer } from './peer.js'
import { packageMissing, startServer, stop } from './service.js'

const load = () => import('zeromq')

export async function serve(called: string): Promise<string> {
  const { Reply } = await load()
  const socket = new Reply({ linger: 0 })
  await socket.bind('tcp://127.0.0.1:*')
  const answer = async (): Promise<void> => {
    for await (const [message] of socket) await socket.send(answerOf(called as FunctionName, message))
  }
  void answer()
  if (socket.lastEndpoint === null) throw new Error('ZeroMQ bound no endpoint')
  return socket.lastEndpoint
}

/** A REQ socket has one request at a time. */
function requestReply(called: FunctionName): Peer {
  const labels = awaited('tcp', called)
  return {
    ...named('zeromq', 'ZeroMQ REQ/REP, TCP', called),
    labels,
    concurrent: false,
    missing: () => packageMissing(load),
    open: async () => {
      const { Request } = await load()
      const { child, address } = await startServer('zeromq', { argument: called })
      return {
        sampler: async (options) => {
          const socket = new Request({ linger: 0 })
          socket.connect(address)
          const call = callsOf(called, Buffer.alloc(options.bytes), async (message) => {
            await socket.send(message)
            const [reply] = await socket.receive()
            return reply
          })
          return sampleCalls(options, call, () => socket.close())
        },
        close: () => stop(child),
      }
    },
  }
}

export const zeromq = requestReply('null')
export const zeromqTouch = requestReply('touch')
