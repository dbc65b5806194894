import { awaited, callsOf, sampleCalls, type Peer } from './peer.js'
import { Replies } from './replies.js'
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
  const labels = awaited('unix')
  return {
    name: `ipc-${serialization}`,
    title: `child_process IPC, ${serialization === 'json' ? 'json (base64)' : 'advanced'}`,
    labels,
    concurrent: true,
    missing: async () => undefined,
    open: async () => {
      const { child } = await startServer('ipc', { serialization, argument: serialization })
      const replies = new Replies<Uint8Array>()
      // The end of the server is told by its exit.
      child.on('error', () => undefined)
      child.on('message', (message) => replies.settle(unpacked(message)))
      return {
        sampler: async (options) => {
          const call = callsOf('null', new Uint8Array(options.bytes), (message) => {
            child.send(packed(message, serialization) as object)
            return replies.next()
          })
          return sampleCalls(options, call, () => undefined)
        },
        close: () => stop(child),
      }
    },
  }
}

export const ipcJson = ipc('json')
export const ipcAdvanced = ipc('advanced')
