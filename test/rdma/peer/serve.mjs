// The other machine of these tests: serves their application, and tells where in a file that both machines see. Runs until
// its machine ends.
import { mkdtempSync, renameSync, writeFileSync } from 'node:fs'
import { setInterval } from 'node:timers'
import { Cluster } from '../../../dist/index.js'
import { RuntimeDirectory } from '../../../dist/agent/runtime_directory.js'

const { RDMA_VM_IP, RDMA_VM_SHARE } = process.env
const runtimeDir = mkdtempSync('/tmp/praas-t-')
const app = new URL('../../fixtures/app.ts', import.meta.url)
const cluster = await Cluster.local({ app, runtimeDir, listen: `${RDMA_VM_IP}:0`, memory: '256 MiB', workers: 2 })
await cluster.process('far')

const told = `${RDMA_VM_SHARE}/served.json`
writeFileSync(
  `${told}.new`,
  JSON.stringify({ url: cluster.listenUrl, token: RuntimeDirectory.open(runtimeDir).token() }),
)
renameSync(`${told}.new`, told) // never seen half written
setInterval(() => undefined, 2 ** 30) // nothing else of a cluster keeps its program alive
