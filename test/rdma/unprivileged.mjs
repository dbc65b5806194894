// Serves and calls as whoever starts it, and prints what it saw as JSON: payloads of all sizes up to far beyond what may be
// locked, one at a time and many.
import { Cluster } from '../../dist/index.js'

const app = new URL('../fixtures/app.ts', import.meta.url)
const cluster = await Cluster.local({ app, transport: 'verbs', memory: '64 MiB', pool: '512 MiB' })
try {
  const served = await cluster.process('plain')
  const wrong = []
  const call = async (byteLength, seed) => {
    const input = Buffer.alloc(byteLength, seed)
    if (!input.equals(await served.invoke('echo', input))) wrong.push(byteLength)
  }
  for (const byteLength of [1, 4096, 65_536, 1 << 20, 12 << 20]) await call(byteLength, 3)
  await Promise.all(Array.from({ length: 16 }, (_, index) => call(1 << 20, index)))
  const given = Array.from({ length: 12 }, () => served.allocate(1 << 20).fill(9))
  for (const input of given) {
    if (!Buffer.from(await served.invoke('echo', input)).equals(input)) wrong.push('allocated')
  }
  console.log(JSON.stringify({ uid: process.getuid(), transport: served.transport, wrong }))
} finally {
  await cluster.close()
}
