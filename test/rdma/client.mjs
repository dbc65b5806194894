// Another client of a process: connects as often as it is told to, `[{ transport, environment }, …]`, calls it once by each
// connection, and prints how that was, as JSON.
import { connect } from '../../dist/index.js'

const [runtimeDir, id, ways] = process.argv.slice(2)

async function take({ transport, environment }) {
  Object.assign(process.env, environment)
  const cluster = await connect(undefined, { runtimeDir, transport })
  try {
    const served = await cluster.process(id, { create: false })
    const input = Buffer.alloc(1 << 20, 7)
    const echoed = input.equals(await served.invoke('echo', input))
    return { transport: served.transport, reason: served.connection?.reason, echoed }
  } catch ({ code, message }) {
    return { code, message }
  } finally {
    await cluster.close()
    for (const name of Object.keys(environment)) delete process.env[name]
  }
}

const seen = []
for (const way of JSON.parse(ways)) seen.push(await take(way))
console.log(JSON.stringify(seen))
