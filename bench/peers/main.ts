// What does a call cost elsewhere? praas and its peers in turns, within one run. See scripts/bench-peers for the options.
import { writeFileSync } from 'node:fs'
import { closeFloor, openFloor, type FloorSpec } from '../../src/bench/floors.js'
import { machine, refuseDebugBuilds } from '../../src/bench/machine.js'
import { notesOn } from '../../src/bench/report.js'
import { floorOf, inTurns, type FloorPart } from '../../src/bench/runner.js'
import type { Sampler } from '../../src/bench/sampler.js'
import { stepsBar } from '../../src/cli/output.js'
import { messageOf } from '../../src/errors.js'
import { formatSize } from '../../src/units.js'
import { useCores } from './cores.js'
import { grpc } from './grpc.js'
import { http } from './http.js'
import { ipcAdvanced, ipcJson } from './ipc.js'
import { mpiShm, mpiShmTouch, mpiTcp, mpiTcpTouch } from './mpi.js'
import { nats } from './nats.js'
import { net, netTouch } from './net.js'
import { parseOptions, type Options } from './options.js'
import { floorsOfPeer, type OpenPeer, type Peer, type SamplerOptions } from './peer.js'
import { piscina, piscinaTouch } from './piscina.js'
import { subjects } from './praas.js'
import { redisGet, redisGetUnix, redisSet, redisSetUnix } from './redis.js'
import { compareAll, type Measured, type PeerReport, type PeerResult } from './results.js'
import { serverLost } from './service.js'
import { table } from './table.js'
import { threads, threadsTouch } from './threads.js'
import { versions } from './versions.js'
import { zeromq, zeromqTouch } from './zeromq.js'

const peers: readonly Peer[] = [
  ...[mpiShm, mpiTcp, net, redisGet, redisSet, redisGetUnix, redisSetUnix],
  ...[threads, ipcJson, ipcAdvanced, piscina, zeromq, http, nats, grpc],
  ...[mpiShmTouch, mpiTcpTouch, netTouch, threadsTouch, piscinaTouch, zeromqTouch],
]

/** Interrupted once, it closes everything after the present batch; twice, it ends at once. */
const interruption = new AbortController()
const interrupted = interruption.signal
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => {
    if (interrupted.aborted) process.exit(1)
    interruption.abort(new Error(`interrupted by ${signal}`))
  })
}

interface Participant {
  readonly peer: Peer
  readonly open: OpenPeer
}

/** Small sizes get all samples, and large ones as many as fit the patience of whoever waits for them. */
function samplesOf(bytes: number, options: Options): number {
  const share = bytes > 2 ** 22 ? 40 : bytes > 2 ** 18 ? 10 : 1
  return Math.ceil(options.samples / share)
}

/** What cannot be measured is left out and says why; without praas there is no run. */
async function orLeftOut<Opened>(peer: Peer, open: () => Promise<Opened>): Promise<Opened | undefined> {
  try {
    return await open()
  } catch (error) {
    if (subjects.includes(peer)) throw error
    console.log(`left out: ${peer.name}: ${messageOf(error)}`)
    return undefined
  }
}

/** Opens one after the other into `opened`. */
async function openAll(chosen: readonly Peer[], inFlight: number, opened: Participant[]): Promise<void> {
  for (const peer of chosen) {
    interrupted.throwIfAborted()
    const missing = inFlight > 1 && !peer.concurrent ? 'one operation at a time only' : await peer.missing()
    if (missing !== undefined) {
      console.log(`left out: ${peer.name}: ${missing}`)
      continue
    }
    const open = await orLeftOut(peer, () => peer.open())
    if (open) opened.push({ peer, open })
  }
}

/** The floors of one size, each open once. */
class Floors {
  readonly #parts = new Map<string, FloorPart>()

  get parts(): readonly FloorPart[] {
    return [...this.#parts.values()]
  }

  /** The parts of one floor, opening what is not open. */
  async of(specs: readonly FloorSpec[], bytes: number, pinning: Options['pin']): Promise<FloorPart[]> {
    const parts: FloorPart[] = []
    for (const spec of specs) {
      const key = JSON.stringify(spec)
      const part = this.#parts.get(key) ?? (await openFloor([spec], bytes, pinning))[0]
      if (!part) continue
      this.#parts.set(key, part)
      parts.push(part)
    }
    return parts
  }

  close(): Promise<void> {
    return closeFloor(this.parts)
  }
}

/** One size: everybody is set up, then they take turns. */
async function measure(participants: readonly Participant[], bytes: number, options: Options): Promise<Measured[]> {
  const size: SamplerOptions = { bytes, inFlight: options.inFlight }
  const total = samplesOf(bytes, options)
  const rounds = Math.min(options.rounds, total)
  const running: { readonly peer: Peer; readonly sampler: Sampler; readonly floor: readonly FloorPart[] }[] = []
  const floors = new Floors()
  const progress = stepsBar()
  try {
    for (const { peer, open } of participants) {
      interrupted.throwIfAborted()
      const floor = await floors.of(peer.floors?.(size) ?? floorsOfPeer(peer.labels, size), bytes, options.pin)
      const sampler = await orLeftOut(peer, () => open.sampler(size))
      if (sampler) running.push({ peer, sampler, floor })
    }
    const entries = [
      ...running.map(({ peer, sampler }) => ({ what: peer.name, sampler })),
      ...floors.parts.map(({ name, sampler }) => ({ what: name, sampler })),
    ]
    progress.expect(rounds * entries.length)
    const turns = inTurns(entries, { perRound: Math.ceil(total / rounds), rounds }, (what) => {
      interrupted.throwIfAborted()
      progress.step(`${formatSize(bytes)} ${what}`)
    })
    const summaries = await Promise.race([turns, serverLost])
    const summaryOf = new Map(entries.map(({ sampler }, index) => [sampler, summaries[index]]))
    return running.flatMap(({ peer, sampler, floor }) => {
      const summary = summaryOf.get(sampler)
      const parts = floor.flatMap((part) => {
        const found = summaryOf.get(part.sampler)
        return found ? [{ name: part.name, summary: found }] : []
      })
      return summary ? [{ peer, summary, floor: floorOf(parts) }] : []
    })
  } finally {
    progress.end()
    for (const { sampler } of running) await sampler[Symbol.asyncDispose]()
    await floors.close()
  }
}

const namesOf = (all: readonly Peer[]): string[] => all.map(({ name }) => name)

async function main(): Promise<void> {
  const args = process.argv.slice(2)
  const options = parseOptions(args, { peers: namesOf(peers), subjects: namesOf(subjects) })
  if (options.list) {
    for (const peer of peers) console.log(`${peer.name.padEnd(20)}${(await peer.missing()) ?? 'ready'}`)
    return
  }
  await refuseDebugBuilds()
  // Asked first: pinning changes how many cores there seem to be.
  const where = {
    command: ['scripts/bench-peers', ...args].join(' '),
    machine: machine(options.pin),
    versions: versions(),
  }
  for (const line of notesOn(where)) console.log(line)
  console.log(Object.entries(where.versions).flat().join(' '))
  await useCores(options.pin)

  const among = (all: readonly Peer[], names: readonly string[] | undefined): Peer[] =>
    all.filter(({ name }) => names?.includes(name) ?? true)
  const chosen = [...among(subjects, options.subjects), ...among(peers, options.peers)]
  const participants: Participant[] = []
  const results: PeerResult[] = []
  try {
    await openAll(chosen, options.inFlight, participants)
    for (const bytes of options.sizes) {
      interrupted.throwIfAborted()
      const measured = await measure(participants, bytes, options)
      const isSubject = ({ peer }: Measured): boolean => subjects.includes(peer)
      const others = measured.filter((one) => !isSubject(one))
      results.push(...compareAll({ bytes, inFlight: options.inFlight }, measured.filter(isSubject), others))
    }
  } finally {
    for (const { open } of participants) await open.close()
  }
  const inFlight = options.inFlight > 1 ? `, ${options.inFlight} in flight` : ''
  for (const name of ['null', 'touch'] as const) {
    const ofFunction = results.filter((result) => result.function === name)
    if (ofFunction.length === 0) continue
    console.log(`\n${name}: round trips of N bytes in and N out${inFlight}`)
    console.log('÷: how many times slower it is than its floor and than each of praas; below 1: faster')
    console.log(table(ofFunction))
  }
  if (options.json === undefined) return
  const report: PeerReport = { ...where, results }
  writeFileSync(options.json, `${JSON.stringify(report, null, 2)}\n`)
}

try {
  await main()
} catch (error) {
  console.error(`bench-peers: ${messageOf(error)}`)
  process.exitCode = 1
}
