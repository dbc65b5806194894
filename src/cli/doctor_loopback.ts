/**
 * Calls over each RDMA device of this machine, from this program to a process of its own: whether everything from the
 * device's file to the completion of a transfer works, and not only seems to.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Cluster } from '../client/cluster.js'
import { codeOf, messageOf } from '../errors.js'
import type { RdmaDevice, RdmaSurvey } from '../native/binding.js'
import { compiledModule } from '../package.js'
import type { Finding } from './finding.js'

/** In the message of a call, and more than goes into one. */
const sizes = [64, 1 << 20] as const
/** The median of as many says what a call takes here. */
const calls = 21

/** One finding for each device that has an active port. */
export async function loopback({ devices = [] }: RdmaSurvey): Promise<Finding[]> {
  const usable = devices.filter(({ error, ports }) => error === undefined && ports.some(({ active }) => active))
  const findings: Finding[] = []
  for (const device of usable) findings.push(await loopbackOver(device))
  if (findings.length > 0) return findings
  return [{ what: 'RDMA loopback', state: 'note', found: 'not run: no RDMA device has an active port' }]
}

async function loopbackOver({ name }: RdmaDevice): Promise<Finding> {
  const what = `RDMA ${name} loopback`
  const runtimeDir = mkdtempSync(join(tmpdir(), 'praas-l-'))
  const before = process.env['PRAAS_IB_DEVICE']
  // Read by native code here and by the process host, which inherits it.
  process.env['PRAAS_IB_DEVICE'] = name
  try {
    return { what, state: 'ok', found: await roundTrips(runtimeDir) }
  } catch (error) {
    const code = codeOf(error)
    const found = code === undefined ? messageOf(error) : `${code}: ${messageOf(error)}`
    return { what, state: 'bad', found, remedy: remedyOf(code) }
  } finally {
    if (before === undefined) delete process.env['PRAAS_IB_DEVICE']
    else process.env['PRAAS_IB_DEVICE'] = before
    rmSync(runtimeDir, { recursive: true, force: true })
  }
}

function remedyOf(code: string | undefined): string {
  switch (code) {
    case 'ERR_UPGRADE_FAILED':
    case 'ERR_CONNECTION_TIMEOUT':
      return 'PRAAS_IB_PORT and PRAAS_IB_GID_INDEX choose another port and address; see docs/rdma.md'
    case 'ERR_BACKPRESSURE':
      return 'raise the limit of locked memory, or lower PRAAS_IB_MEMORY'
    default:
      return 'see docs/rdma.md; PRAAS_IB_DEVICE chooses another device'
  }
}

/** @returns what calls take */
async function roundTrips(runtimeDir: string): Promise<string> {
  const app = compiledModule('cli/loopback_app.js')
  const cluster = await Cluster.local({ app, runtimeDir, transport: 'verbs', memory: '16MiB', pool: '64MiB' })
  try {
    const served = await cluster.process('loopback')
    const said: string[] = []
    for (const bytes of sizes) {
      const input = Uint8Array.from({ length: bytes }, (_, index) => index)
      const times: number[] = []
      for (let call = 0; call < calls; call++) {
        const began = performance.now()
        const result = await served.invoke('echo', input)
        times.push(performance.now() - began)
        if (Buffer.compare(result, input) !== 0) throw new Error(`a call of ${bytes} bytes gave other bytes back`)
      }
      said.push(`${bytes} B in ${medianOf(times)} µs`)
    }
    // It may have been lost under way, and calls gone on by another.
    const { transport, reason } = served.connection ?? {}
    if (transport !== 'verbs') throw new Error(`calls went over ${transport ?? 'nothing'}: ${reason ?? 'no reason'}`)
    return `calls there and back: ${said.join(', ')}`
  } finally {
    await cluster.close()
  }
}

function medianOf(times: number[]): number {
  return Math.round((times.sort((a, b) => a - b)[times.length >> 1] ?? 0) * 1_000)
}
