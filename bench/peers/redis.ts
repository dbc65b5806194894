import { join } from 'node:path'
import { awaited, sampleCalls, type Peer } from './peer.js'
import { findProgram, freePort, packageMissing, programMissing, startProgram, stop } from './service.js'
import { removeFolder, temporaryFolder } from './temporary.js'

const load = () => import('ioredis')

/** A real server with nothing on disk. GET answers N bytes, SET sends them: each moves them once, an invocation twice. */
function redis(command: 'get' | 'set', transport: 'tcp' | 'unix'): Peer {
  const labels = { ...awaited(transport), kind: null }
  return {
    name: `redis-${command}${transport === 'unix' ? '-unix' : ''}`,
    title: `Redis ${command.toUpperCase()}, ${transport === 'unix' ? 'UNIX socket' : 'TCP'}`,
    labels,
    concurrent: true,
    missing: async () => (await packageMissing(load)) ?? programMissing('redis-server', 'redis-server'),
    open: async () => {
      const { Redis } = await load()
      const folder = temporaryFolder()
      const address =
        transport === 'unix' ? { path: join(folder, 'redis.sock') } : { host: '127.0.0.1', port: await freePort() }
      const listen =
        address.path === undefined ? ['--port', String(address.port)] : ['--port', '0', '--unixsocket', address.path]
      const args = ['--bind', '127.0.0.1', ...listen, '--dir', folder, '--save', '', '--appendonly', 'no']
      const child = await startProgram(
        findProgram('redis-server') ?? 'redis-server',
        args,
        /ready to accept connections/i,
      )
      return {
        sampler: async (options) => {
          const client = new Redis(address)
          const value = Buffer.alloc(options.bytes)
          await client.set('value', value)
          const get = async (): Promise<void> => {
            const reply = await client.getBuffer('value')
            if (reply?.length !== options.bytes) throw new Error('a reply of another size')
          }
          const call = command === 'get' ? get : () => client.set('value', value)
          return sampleCalls(options, call, () => client.disconnect())
        },
        close: async () => {
          await stop(child)
          removeFolder(folder)
        },
      }
    },
  }
}

export const redisGet = redis('get', 'tcp')
export const redisSet = redis('set', 'tcp')
export const redisGetUnix = redis('get', 'unix')
export const redisSetUnix = redis('set', 'unix')
