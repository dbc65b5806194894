/**
 * `ib_write_lat` and `ib_send_lat` of the package perftest, which many know their fabric by, as samplers: a server and a
 * client for each batch, over the device that praas would take.
 *
 * They report half of each round trip, in microseconds. What is recorded here is the round trip: twice that.
 */
import { execFile, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync } from 'node:fs'
import { createServer, type AddressInfo } from 'node:net'
import { delimiter, join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { promisify } from 'node:util'
import { messageOf, PraasError } from '../errors.js'
import { endsWithThis } from './children.js'
import { childEnvironment } from './environment.js'
import type { Pinning } from './pinning.js'
import type { RdmaChoice } from './rdma_choice.js'
import type { Mode } from './result.js'
import { batchMs, batchOf, sampler, warmUpOf, type Sampler } from './sampler.js'

const perftestPrograms = ['ib_write_lat', 'ib_send_lat'] as const
export type PerftestProgram = (typeof perftestPrograms)[number]

/** Why these programs are not measured, or undefined. */
export function withoutPerftest(): string | undefined {
  const folders = (process.env['PATH'] ?? '').split(delimiter)
  const missing = perftestPrograms.filter((name) => !folders.some((folder) => existsSync(join(folder, name))))
  return missing.length > 0 ? `${missing.join(' and ')} of the package perftest are not installed` : undefined
}

/** Those that can do as the mode says: a write tells nobody of its arrival, so only sends can be slept for. */
export function perftestFor(mode: Mode): readonly PerftestProgram[] {
  return mode === 'hot' ? perftestPrograms : ['ib_send_lat']
}

export interface PerftestSpec {
  readonly program: PerftestProgram
  readonly bytes: number
  /** Hot: it polls; warm: it sleeps until there is a completion. */
  readonly mode: Mode
  readonly choice: RdmaChoice
  readonly pinning: Pinning | undefined
}

const nsPerUs = 1e3

export function perftestSampler(spec: PerftestSpec): Sampler {
  const { bytes, program } = spec
  return sampler({}, async (count) => {
    // The first includes the connection; theirs has no warm-up of its own.
    const skipped = warmUpOf(bytes)(count) + 1
    const halves = roundTripHalves(await measure(spec, skipped + count)).slice(-count)
    if (halves.length !== count) throw failure(program, `reported ${halves.length} of ${count} times`)
    return batchOf(Float64Array.from(halves, (us) => 2 * us * nsPerUs))
  })
}

/** The unsorted times in the report of one of these programs (`--report-unsorted`), microseconds. */
export function roundTripHalves(report: string): number[] {
  return Array.from(report.matchAll(/^\d+, ([\d.]+)$/gm), ([, us]) => Number(us))
}

/** What the client reports of `iterations`. */
async function measure({ program, bytes, mode, choice, pinning }: PerftestSpec, iterations: number): Promise<string> {
  const port = await freePort()
  const args = [
    ...['--ib-dev', choice.device, '--ib-port', String(choice.port), '--gid-index', String(choice.gidIndex)],
    ...['--size', String(bytes), '--iters', String(iterations), '--port', String(port)],
    ...['--report-unsorted', '--CPU-freq', ...(mode === 'warm' ? ['--events'] : [])],
  ]
  // By env, so that there is one way to start both.
  const on = (core: number | undefined): string[] => (core === undefined ? [] : ['taskset', '--cpu-list', String(core)])
  const options = { env: childEnvironment({}) }
  const serving = [...on(pinning?.worker), program, ...args]
  const calling = [...on(pinning?.client), program, ...args, '127.0.0.1']
  const server = endsWithThis(spawn('env', serving, { ...options, stdio: ['ignore', 'ignore', 'pipe'] }))
  let said = ''
  server.stderr.setEncoding('utf8').on('data', (text: string) => (said += text))
  const ended = once(server, 'close').catch((error: unknown) => (said += messageOf(error)))
  try {
    await untilListening(server, port)
    const { stdout } = await promisify(execFile)('env', calling, {
      ...options,
      timeout: batchMs,
      maxBuffer: 1 << 30,
    })
    return stdout
  } catch (error) {
    throw failure(program, [messageOf(error), said].join('\n').trim())
  } finally {
    server.kill('SIGTERM')
    await ended
  }
}

function failure(program: string, why: string): PraasError {
  return new PraasError('ERR_UNSUPPORTED', `${program}: ${why}`)
}

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as AddressInfo
  probe.close()
  await once(probe, 'close')
  return port
}

/** It says so only to terminals, and a connection made to find out would be taken for that of its client. */
async function untilListening(server: ChildProcess, port: number): Promise<void> {
  const listening = new RegExp(`:${port.toString(16).toUpperCase().padStart(4, '0')} \\S+ 0A `)
  while (!['tcp', 'tcp6'].some((table) => listening.test(readFileSync(`/proc/net/${table}`, 'latin1')))) {
    if (server.exitCode !== null || server.pid === undefined) throw new Error('its server ended')
    await delay(20)
  }
}
