// What does a call cost elsewhere? praas and its peers in turns, within one run. See scripts/bench-peers for the options.
import { writeFileSync } from 'node:fs'
import { Presets, SingleBar } from 'cli-progress'
import { grpc } from './grpc.js'
import { http } from './http.js'
import { ipcAdvanced, ipcJson } from './ipc.js'
import { machine, versions } from './machine.js'
import { mpiShm, mpiTcp } from './mpi.js'
import { nats } from './nats.js'
import { net } from './net.js'
import { parseOptions, type Options } from './options.js'
import { pinClients } from './pinning.js'
import { piscina } from './piscina.js'
import { subjects } from './praas.js'
import { redisGet, redisGetUnix, redisSet, redisSetUnix } from './redis.js'
import { compare, summarize, type Measured, type Result } from './results.js'
import type { Batch, OpenPeer, Peer, Sampler } from './sampler.js'
import { sizeText, table } from './table.js'
import { threads } from './threads.js'
import { zeromq } from './zeromq.js'

const peers: readonly Peer[] = [
  ...[mpiShm, mpiTcp, net, redisGet, redisSet, redisGetUnix, redisSetUnix],
  ...[threads, ipcJson, ipcAdvanced, piscina, zeromq, http, nats, grpc],
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

/** Opens one after the other into `opened`. What cannot be measured is left out and says why; without praas there is no run. */
async function openAll(chosen: readonly Peer[], inFlight: number, opened: Participant[]): Promise<void> {
  for (const peer of chosen) {
    interrupted.throwIfAborted()
    let missing = inFlight > 1 && !peer.concurrent ? 'one operation at a time only' : await peer.missing()
    try {
      if (missing === undefined) opened.push({ peer, open: await peer.open() })
    } catch (error) {
      if (subjects.includes(peer)) throw error
      missing = error instanceof Error ? error.message : String(error)
    }
    if (missing !== undefined) console.log(`left out: ${peer.name}: ${missing}`)
  }
}

/** One size: everybody is set up, then they take turns. */
async function measure(
  participants: readonly Participant[],
  bytes: number,
  options: Options,
  progress: SingleBar,
): Promise<Measured[]> {
  const { inFlight } = options
  const total = samplesOf(bytes, options)
  const rounds = Math.min(options.rounds, total)
  const running: { readonly peer: Peer; readonly sampler: Sampler; readonly batches: Batch[] }[] = []
  progress.start(rounds * participants.length, 0, { size: sizeText(bytes), name: '' })
  try {
    for (const { peer, open } of participants)
      running.push({ peer, sampler: await open.sampler({ bytes, inFlight }), batches: [] })
    // Not counted: the first turn also compiles what it runs.
    for (const { sampler } of running) {
      interrupted.throwIfAborted()
      await sampler.sample(Math.ceil(total / rounds))
    }
    for (let round = 0; round < rounds; round++) {
      const count = Math.floor(((round + 1) * total) / rounds) - Math.floor((round * total) / rounds)
      for (const { peer, sampler, batches } of running) {
        interrupted.throwIfAborted()
        progress.increment(1, { name: peer.name })
        batches.push(await sampler.sample(count))
      }
    }
  } finally {
    progress.stop()
    for (const { sampler } of running) await sampler.close()
  }
  return running.map(({ peer, batches }) => ({ peer, figures: summarize(batches) }))
}

const namesOf = (all: readonly Peer[]): string[] => all.map(({ name }) => name)

async function main(): Promise<void> {
  const options = parseOptions(process.argv.slice(2), { peers: namesOf(peers), subjects: namesOf(subjects) })
  if (options.list) {
    for (const peer of peers) console.log(`${peer.name.padEnd(16)}${(await peer.missing()) ?? 'ready'}`)
    return
  }
  const where = {
    machine: { ...machine(), ...(options.pin ? { pinning: options.pin } : {}) },
    versions: versions(),
    date: new Date().toISOString(),
  }
  const { cpu, cores, kernel } = where.machine
  console.log(`${cpu}, ${cores} cores, kernel ${kernel}, ${where.date}`)
  console.log(
    Object.entries(where.versions)
      .map((entry) => entry.join(' '))
      .join(', '),
  )
  if (options.pin) pinClients(options.pin)
  if (cores < 3) console.log('client, server between them, and worker do not have a core each')

  const among = (all: readonly Peer[], names: readonly string[] | undefined): Peer[] =>
    all.filter(({ name }) => names?.includes(name) ?? true)
  const chosen = [...among(subjects, options.subjects), ...among(peers, options.peers)]
  const progress = new SingleBar(
    { format: '{bar} {size} {name}', stream: process.stderr, clearOnComplete: true },
    Presets.shades_classic,
  )
  const participants: Participant[] = []
  const results: Result[] = []
  try {
    await openAll(chosen, options.inFlight, participants)
    for (const bytes of options.sizes) {
      interrupted.throwIfAborted()
      const measured = await measure(participants, bytes, options, progress)
      const isSubject = ({ peer }: Measured): boolean => subjects.includes(peer)
      results.push(
        ...compare(
          bytes,
          options.inFlight,
          measured.filter(isSubject),
          measured.filter((one) => !isSubject(one)),
        ),
      )
    }
  } finally {
    for (const { open } of participants) await open.close()
  }
  const columns = participants.map(({ peer }) => peer).filter((peer) => subjects.includes(peer))
  const inFlight = options.inFlight > 1 ? `, ${options.inFlight} in flight` : ''
  console.log(`round trips of N bytes in and N out${inFlight}; ÷: how many times faster praas is, below 1 slower`)
  console.log(
    table(
      results,
      columns.map(({ name }) => name),
    ),
  )
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify({ ...where, results }, null, 2)}\n`)
}

try {
  await main()
} catch (error) {
  console.error(`bench-peers: ${error instanceof Error ? error.message : String(error)}`)
  process.exitCode = 1
}
