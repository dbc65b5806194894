import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import { Replies } from './replies.js'
import { sampleAsync, type Peer } from './sampler.js'
import { startServer, stop } from './service.js'

export async function serve(): Promise<string> {
  const server = createServer({ noDelay: true }, (socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no TCP port')
  return String(address.port)
}

/** What Node's sockets cost: no messages, no functions, and bytes go back before all of them have come. */
export const net: Peer = {
  name: 'net',
  title: 'node:net raw echo',
  client: 'await',
  concurrent: true,
  missing: async () => undefined,
  open: async () => {
    const { child, address } = await startServer('net')
    return {
      sampler: async (options) => {
        const socket = connect({ port: Number(address), host: '127.0.0.1', noDelay: true })
        await once(socket, 'connect')
        const replies = new Replies()
        let received = 0
        socket.on('data', (chunk) => {
          received += chunk.length
          for (; received >= options.bytes; received -= options.bytes) replies.settle()
        })
        const message = Buffer.alloc(options.bytes)
        const call = (): Promise<void> => {
          socket.write(message)
          return replies.next()
        }
        return sampleAsync(options, call, async () => {
          socket.destroy()
        })
      },
      close: () => stop(child),
    }
  },
}
