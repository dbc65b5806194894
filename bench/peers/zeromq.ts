import { sampleAsync, type Peer } from './sampler.js'
import { packageMissing, startServer, stop } from './service.js'

const load = () => import('zeromq')

export async function serve(): Promise<string> {
  const { Reply } = await load()
  const socket = new Reply({ linger: 0 })
  await socket.bind('tcp://127.0.0.1:*')
  const answer = async (): Promise<void> => {
    for await (const [message] of socket) await socket.send(message)
  }
  void answer()
  if (socket.lastEndpoint === null) throw new Error('ZeroMQ bound no endpoint')
  return socket.lastEndpoint
}

/** A REQ socket has one request at a time. */
export const zeromq: Peer = {
  name: 'zeromq',
  title: 'ZeroMQ REQ/REP, TCP',
  client: 'await',
  concurrent: false,
  missing: () => packageMissing(load),
  open: async () => {
    const { Request } = await load()
    const { child, address } = await startServer('zeromq')
    return {
      sampler: async (options) => {
        const socket = new Request({ linger: 0 })
        socket.connect(address)
        const message = Buffer.alloc(options.bytes)
        const call = async (): Promise<void> => {
          await socket.send(message)
          const [reply] = await socket.receive()
          if (reply.length !== message.length) throw new Error('a reply of another size')
        }
        return sampleAsync(options, call, async () => socket.close())
      },
      close: () => stop(child),
    }
  },
}
