// A client that locks something and calls without end, until it is killed.
import { connect } from '../../dist/index.js'

const [runtimeDir, id, transport] = process.argv.slice(2)
const cluster = await connect(undefined, { runtimeDir, transport })
const served = await cluster.process(id, { create: false })
await served.state.lock('held by the client')
const input = new Uint8Array(1 << 20)
await served.invoke('echo', input)
console.log(served.transport)
for (;;) await Promise.all([served.invoke('echo', input), served.invoke('echo', input.subarray(0, 64))])
