import { once } from 'node:events'
import { connect, createServer } from 'node:net'
import type { FunctionName } from '../../src/bench/result.js'
import { Touch } from '../../src/bench/touch.js'
import { answerOf } from './answers.js'
import { awaited, named, sampleCalls, type Peer } from './peer.js'
import { Replies } from './replies.js'
import { startServer, stop } from './service.js'

export async function serve(called: string): Promise<string> {
  const server = createServer({ noDelay: true }, (socket) => {
    if (called === 'null') socket.pipe(socket)
    else socket.on('data', (chunk) => socket.write(answerOf('touch', chunk)))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no TCP port')
  return String(address.port)
}

/** What Node's sockets cost: no messages, no functions, and bytes go back before all of them have come. */
function rawEcho(called: FunctionName): Peer {
  const labels = awaited('tcp', called)
  return {
    ...named('net', 'node:net raw echo', called),
    labels,
    concurrent: called === 'null',
    missing: async () => undefined,
    open: async () => {
      const { child, address } = await startServer('net', { argument: called })
      return {
        sampler: async (options) => {
          const socket = connect({ port: Number(address), host: '127.0.0.1', noDelay: true })
          await once(socket, 'connect')
          // The end of the server is told by its process.
          socket.on('error', () => undefined)
          const touch = new Touch()
          const replies = new Replies<void>()
          let received = 0
          socket.on('data', (chunk) => {
            if (called === 'touch') touch.read(chunk)
            received += chunk.length
            for (; received >= options.bytes; received -= options.bytes) replies.settle()
          })
          const message = Buffer.alloc(options.bytes)
          const call = (): Promise<void> => {
            if (called === 'touch') touch.write(message)
            socket.write(message)
            return replies.next()
          }
          return sampleCalls(options, call, () => void socket.destroy())
        },
        close: () => stop(child),
      }
    },
  }
}

export const net = rawEcho('null')
export const netTouch = rawEcho('touch')
