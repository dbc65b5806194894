import { Replies } from './replies.js'
import { sampleAsync, type Peer } from './sampler.js'
import { startServer, stop } from './service.js'

type Serialization = 'json' | 'advanced'

/** JSON has no bytes: they travel as base64, which is faster than the array of numbers that a Buffer becomes. */
function packed(bytes: Uint8Array, serialization: Serialization): unknown {
  return serialization === 'json' ? Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64') : bytes
}

function unpacked(message: unknown): Uint8Array {
  return typeof message === 'string' ? Buffer.from(message, 'base64') : (message as Uint8Array)
}

export async function serve(serialization: string): Promise<string> {
  process.on('message', (message) => process.send?.(packed(unpacked(message), serialization as Serialization)))
  return ''
}

function ipc(serialization: Serialization): Peer {
  return {
    name: `ipc-${serialization}`,
    title: `child_process IPC, ${serialization === 'json' ? 'json (base64)' : 'advanced'}`,
    client: 'await',
    concurrent: true,
    missing: async () => undefined,
    open: async () => {
      const { child } = await startServer('ipc', { serialization, argument: serialization })
      const replies = new Replies()
      let length = 0
      child.on('message', (message) => {
        length = unpacked(message).length
        replies.settle()
      })
      return {
        sampler: async (options) => {
          const message = new Uint8Array(options.bytes)
          const call = async (): Promise<void> => {
            child.send(packed(message, serialization) as object)
            await replies.next()
            if (length !== options.bytes) throw new Error('a reply of another size')
          }
          return sampleAsync(options, call, async () => undefined)
        },
        close: () => stop(child),
      }
    },
  }
}

export const ipcJson = ipc('json')
export const ipcAdvanced = ipc('advanced')
