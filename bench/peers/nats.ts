import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { awaited, callsOf, floorsOfPeer, sampleCalls, type Peer } from './peer.js'
import { findProgram, freePort, packageMissing, programMissing, startProgram, startServer, stop } from './service.js'
import { removeFolder, temporaryFolder } from './temporary.js'

const load = () => import('@nats-io/transport-node')
const subject = 'echo'

/** The responder, a client of the server itself. */
export async function serve(servers: string): Promise<string> {
  const { connect } = await load()
  const connection = await connect({ servers })
  connection.subscribe(subject, {
    callback: (error, message) => {
      if (error) throw error
      message.respond(message.data)
    },
  })
  await connection.flush()
  return servers
}

const labels = awaited('tcp')

/** Two hops each way, through nats-server. */
export const nats: Peer = {
  name: 'nats',
  title: 'NATS request',
  labels,
  concurrent: true,
  floors: (size) => [...floorsOfPeer(labels, size), ...floorsOfPeer(labels, size)],
  missing: async () => (await packageMissing(load)) ?? programMissing('nats-server', 'nats-server'),
  open: async () => {
    const { connect } = await load()
    const folder = temporaryFolder()
    const config = join(folder, 'nats.conf')
    const port = await freePort()
    await writeFile(
      config,
      `host: 127.0.0.1\nport: ${port}\nmax_payload: 64MB\nmax_pending: 512MB\nwrite_deadline: "60s"\n`,
    )
    const program = findProgram('nats-server') ?? 'nats-server'
    const child = await startProgram(program, ['--config', config], /Server is ready/)
    const responder = await startServer('nats', { argument: `127.0.0.1:${port}` })
    return {
      sampler: async (options) => {
        const client = await connect({ servers: responder.address })
        const exchange = async (message: Uint8Array): Promise<Uint8Array> =>
          (await client.request(subject, message, { timeout: 60_000 })).data
        const call = callsOf('null', new Uint8Array(options.bytes), exchange)
        return sampleCalls(options, call, () => client.close())
      },
      close: async () => {
        await stop(responder.child)
        await stop(child)
        removeFolder(folder)
      },
    }
  },
}
