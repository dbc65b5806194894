import { createServer } from 'node:http'
import { once } from 'node:events'
import { awaited, callsOf, sampleCalls, type Peer } from './peer.js'
import { packageMissing, startServer, stop } from './service.js'

const load = () => import('undici')

export async function serve(): Promise<string> {
  const server = createServer({ keepAliveTimeout: 0, requestTimeout: 0, noDelay: true }, (request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      const [first = Buffer.alloc(0), ...more] = chunks
      const body = more.length === 0 ? first : Buffer.concat(chunks)
      response.writeHead(200, { 'content-length': body.length, 'content-type': 'application/octet-stream' }).end(body)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no TCP port')
  return `http://127.0.0.1:${address.port}`
}

const labels = awaited('tcp')

/** Kept-alive connections, as many as there are requests at a time: HTTP/1.1 answers in order. */
export const http: Peer = {
  name: 'http',
  title: 'undici → node:http POST',
  labels,
  concurrent: true,
  missing: () => packageMissing(load),
  open: async () => {
    const { Pool } = await load()
    const { child, address } = await startServer('http')
    return {
      sampler: async (options) => {
        const pool = new Pool(address, { connections: options.inFlight, keepAliveTimeout: 600_000 })
        const call = callsOf('null', new Uint8Array(options.bytes), async (message) => {
          const response = await pool.request({ path: '/', method: 'POST', body: message })
          return new Uint8Array(await response.body.arrayBuffer())
        })
        return sampleCalls(options, call, () => pool.close())
      },
      close: () => stop(child),
    }
  },
}
