import type { Callback, MethodDefinition } from '@grpc/grpc-js'
import { awaited, callsOf, sampleCalls, type Peer } from './peer.js'
import { packageMissing, startServer, stop } from './service.js'

const load = () => import('@grpc/grpc-js')
const same = (bytes: Buffer): Buffer => bytes
const echo: MethodDefinition = {
  path: '/bench.Peer/Echo',
  requestStream: false,
  responseStream: false,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
}
const unlimited = { 'grpc.max_receive_message_length': -1, 'grpc.max_send_message_length': -1 }

export async function serve(): Promise<string> {
  const { Server, ServerCredentials } = await load()
  const server = new Server(unlimited)
  server.addService({ echo }, { echo: ({ request }, callback) => callback(null, request) })
  return new Promise((resolve, reject) => {
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
      if (error) reject(error)
      else resolve(`127.0.0.1:${port}`)
    })
  })
}

const labels = awaited('tcp')

/** The bytes as they are, without protocol buffers. */
export const grpc: Peer = {
  name: 'grpc',
  title: '@grpc/grpc-js unary',
  labels,
  concurrent: true,
  missing: () => packageMissing(load),
  open: async () => {
    const { Client, credentials } = await load()
    const { child, address } = await startServer('grpc')
    return {
      sampler: async (options) => {
        const client = new Client(address, credentials.createInsecure(), unlimited)
        const message = Buffer.alloc(options.bytes)
        const exchange = (): Promise<Uint8Array> =>
          new Promise((resolve, reject) => {
            const done: Callback = (error, reply = Buffer.alloc(0)) => {
              if (error) reject(error)
              else resolve(reply)
            }
            client.makeUnaryRequest(echo.path, same, same, message, done)
          })
        return sampleCalls(options, callsOf('null', message, exchange), () => client.close())
      },
      close: () => stop(child),
    }
  },
}
