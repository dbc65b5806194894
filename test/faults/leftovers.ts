/** What is left when nothing is under way: in processes, of OS processes, in /dev/shm and among the message queues. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import type { Process } from '../../src/client/process.js'
import type { ProcessDescription } from '../../src/control.js'
import { native } from '../../src/native/binding.js'
import { limits, processes, type ServedProcess } from './plan.js'

interface Arena {
  readonly usedBytes: number
  readonly usedBlocks: number
}

interface Statistics {
  readonly hostPid: number
  readonly callsInUse: number
  readonly windows: number
  readonly participants: readonly { role: string; state: string; pid: number; running: number }[]
  readonly inputs: Arena
  readonly outputs: Arena
  readonly data: Arena
}

interface Segment {
  readonly violations: readonly string[]
  readonly unchecked: readonly string[]
  readonly refused?: string
  readonly windows: readonly { index: number; state: string; clientPid: number }[]
  readonly calls: readonly unknown[]
  readonly state: {
    readonly keyCount: number
    readonly lockCount: number
    readonly keys: readonly { key: string; kind: string; pins: number }[]
  }
}

/** Open descriptors by what they are. */
export type Descriptors = Readonly<Record<string, number>>

export interface Baseline {
  readonly host: Descriptors
  readonly workers: Readonly<Record<string, Descriptors>>
}

export function descriptorsOf(pid: number): Descriptors {
  const kinds: Record<string, number> = {}
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      const target = readlinkSync(`/proc/${pid}/fd/${fd}`)
      const kind = target.replace(/^(socket|pipe):.*/, '$1').replace(/ \(deleted\)$/, '')
      kinds[kind] = (kinds[kind] ?? 0) + 1
    } catch (error) {
      if ((error as { code?: string }).code !== 'ENOENT') throw error // the one that lists them
    }
  }
  return kinds
}

export function descriptorsOfAll({ pid = 0, workers }: ProcessDescription): Baseline {
  return {
    host: descriptorsOf(pid),
    workers: Object.fromEntries(workers.map((worker) => [worker.kind, descriptorsOf(worker.pid)])),
  }
}

/**
 * Hosts keep the eventfd of every participant there ever was (`native/host/wakers.h`), and workers those they were given: at most
 * one per place for a leased worker, and one for each worker that was replaced while its predecessor still had its place.
 */
const keptEventfds = limits.leaseWorkers + 4

function moreThan(before: Descriptors, now: Descriptors, kept: (kind: string) => number = keptBy): string[] {
  return Object.entries(now)
    .filter(([kind, count]) => count > (before[kind] ?? 0) + kept(kind))
    .map(([kind, count]) => `${count} × ${kind} instead of ${before[kind] ?? 0}`)
}
const keptBy = (kind: string): number => (kind === 'anon_inode:[eventfd]' ? keptEventfds : 0)

/** Connections that are closing, or kept for the next request. */
const mostIdle = 6

/** How many more of a kind there may be. */
interface Kept {
  readonly memfd: number
  readonly eventfd: number
  readonly socket: number
}

const keptWith =
  (more: Kept) =>
  (kind: string): number => {
    const [name] = /memfd|eventfd|socket/.exec(kind) ?? []
    // libuv keeps one in reserve from the first socket of a loop on.
    return keptBy(kind) + (name === undefined ? 0 : more[name as keyof Kept]) + (kind === '/dev/null' ? 1 : 0)
  }

/**
 * Of a host, because workers keep their connections to it. Each has a window, with a memfd and the eventfds of both sides, unless
 * it could not be made.
 *
 * @param windows  of workers
 * @param peers  workers that may be connected
 */
export const moreOfHost = (before: Descriptors, now: Descriptors, windows: number, peers: number): string[] =>
  moreThan(before, now, keptWith({ memfd: windows, eventfd: windows * 2, socket: peers }))

/** Of a worker: of those windows, and of its own connections to each process, and to the agent. */
export const moreOfWorker = (before: Descriptors, now: Descriptors, windows: number): string[] =>
  moreThan(
    before,
    now,
    keptWith({
      memfd: windows + processes.length,
      eventfd: windows + processes.length * 3,
      socket: processes.length * 2 + mostIdle,
    }),
  )

/** Of an OS process, against when it had come to rest for the first time. */
export class OwnDescriptors {
  readonly #pid: number
  #first: Descriptors | undefined

  constructor(pid = process.pid) {
    this.#pid = pid
  }

  /** What it has more than then: a few connections are no matter, one for each host there ever was is. */
  more(): string[] {
    const now = descriptorsOf(this.#pid)
    this.#first ??= now
    return moreThan(this.#first, now, () => mostIdle)
  }
}

export function childrenOf(pid: number): number[] {
  return readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number),
  )
}

/**
 * What of a process that nobody uses is not as it should be.
 *
 * @param peers  workers of all processes, which may be connected to this one
 */
export async function leftoversIn(
  served: ServedProcess,
  handle: Process,
  workersPerLanguage: number,
  baseline: Baseline | undefined,
  peers: ReadonlySet<number> = new Set(),
): Promise<string[]> {
  const left: string[] = []
  const expect = (what: string, found: number, wanted: number): void => {
    if (found !== wanted) left.push(`${served.id}: ${what}: ${found} instead of ${wanted}`)
  }
  const description = await handle.describe()
  const statistics = (await handle.statistics()) as Statistics
  const { leases, waiting, free, capacity } = await handle.leases()
  const segment = JSON.parse(native().inspectSegment(description.segment, served.id)) as Segment
  const workers = workersPerLanguage * (Number(served.node) + Number(served.native))
  expect('workers that are ready', description.workers.filter(({ state }) => state === 'ready').length, workers)
  expect('workers', description.workers.length, workers)
  expect('calls in use', statistics.callsInUse, 0)
  expect('calls in the table', segment.calls.length, 0)
  expect(
    'calls that run',
    statistics.participants.reduce((sum, { running }) => sum + running, 0),
    0,
  )
  expect('participants', statistics.participants.length, workers + 1)
  expect('bytes of inputs', statistics.inputs.usedBytes, 0)
  expect('bytes of outputs', statistics.outputs.usedBytes, 0)
  const windowsOf = segment.windows.filter(({ state }) => state !== 'free').map(({ clientPid }) => clientPid)
  const ofPeers = windowsOf.filter((pid) => peers.has(pid))
  expect('windows', windowsOf.length, ofPeers.length)
  expect('windows of workers', ofPeers.length, new Set(ofPeers).size)
  expect('leases', leases.length, 0)
  expect('who wait for leases', waiting, 0)
  expect('workers free for leases', free, capacity)
  expect('locks', segment.state.lockCount, 0)
  expect('blocks of state', statistics.data.usedBlocks, segment.state.keyCount)
  // Workers keep shared arrays beyond an invocation.
  for (const { key, kind, pins } of segment.state.keys) if (kind === 'value') expect(`pins of ${key}`, pins, 0)
  for (const violation of [...segment.violations, ...segment.unchecked])
    left.push(`${served.id}: segment: ${violation}`)
  if (segment.refused !== undefined) left.push(`${served.id}: segment refused: ${segment.refused}`)
  const { pid = 0 } = description
  expect('children of the host', childrenOf(pid).length, workers)
  if (baseline && left.length === 0) {
    for (const more of moreOfHost(baseline.host, descriptorsOf(pid), ofPeers.length, peers.size))
      left.push(`${served.id}: host ${pid}: ${more}`)
    for (const worker of description.workers) {
      const before = baseline.workers[worker.kind] ?? {}
      for (const more of moreOfWorker(before, descriptorsOf(worker.pid), ofPeers.length)) {
        left.push(`${served.id}: ${worker.kind} worker ${worker.pid}: ${more}`)
      }
    }
  }
  return left
}

/** Whether there is an OS process with this text in its environment. */
export function runsWith(pid: number | string, text: string): boolean {
  try {
    const state = /^\d+ \(.*\) (\S)/s.exec(readFileSync(`/proc/${pid}/stat`, 'utf8'))?.[1]
    return state !== 'Z' && readFileSync(`/proc/${pid}/environ`, 'utf8').includes(text)
  } catch {
    return false // it has ended
  }
}

/** OS processes, beside `except`, whose environment has this text: what a campaign has started, at whatever depth. */
export function survivors(text: string, except: ReadonlySet<number>): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && !except.has(Number(name)))
    .filter((pid) => runsWith(pid, text))
    .map((pid) => `OS process ${pid}`)
}

/** Names that a closed cluster should have taken with it: of segments, and the same of message queues. */
export function names(segments: readonly string[]): string[] {
  const objects = readdirSync('/dev/shm')
  return segments.flatMap((segment) => [
    ...objects.filter((name) => `/${name}` === segment).map((name) => `/dev/shm/${name}`),
    ...[segment, `${segment}-native`]
      .filter((name) => native().unlinkMessageQueue(name))
      .map((name) => `message queue ${name}`),
  ])
}
