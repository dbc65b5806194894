import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { sampleAsync, type Peer } from './sampler.js'
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

/** Two hops each way, through nats-server. */
export const nats: Peer = {
  name: 'nats',
  title: 'NATS request',
  client: 'await',
  concurrent: true,
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
    const { child } = await startProgram(program, ['--config', config], /Server is ready/)
    const responder = await startServer('nats', { argument: `127.0.0.1:${port}` })
    return {
      sampler: async (options) => {
        const client = await connect({ servers: responder.address })
        const message = new Uint8Array(options.bytes)
        const call = async (): Promise<void> => {
          const reply = await client.request(subject, message, { timeout: 60_000 })
          if (reply.data.length !== message.length) throw new Error('a reply of another size')
        }
        return sampleAsync(options, call, () => client.close())
      },
      close: async () => {
        await stop(responder.child)
        await stop(child)
        removeFolder(folder)
      },
    }
  },
}
