/**
 * What no client can see alone, found in the histories of all clients and the journal of all functions when everything stands
 * still: calls that ran twice, too late, too long or not at all, locks held together, reads of keys of others, answers that came
 * late.
 */
import type { Gap } from './agent_process.js'
import { recordsPerId } from './bytes.js'
import { events, type Entry } from './journal.js'
import { expected } from './codes.js'
import type { Begun, Ended, Line } from './history.js'
import type { Stop } from './injector.js'
import { checkMailboxes } from './mailbox.js'
import { lockNames } from './plan.js'
import type { Seen, Write } from './register.js'
import { checkShared, type SharedValues } from './shared.js'

export interface Found {
  readonly check: string
  readonly text: string
}

export interface Audit {
  readonly found: Found[]
  /** How many of what was looked at. */
  readonly counts: Readonly<Record<string, number>>
  /** Operations by kind, and how they ended. */
  readonly operations: ReadonlyMap<string, number>
  readonly outcomes: ReadonlyMap<string, number>
  /** Calls that were answered, by the transport they took, and by who served them. */
  readonly carried: ReadonlyMap<string, number>
  readonly served: ReadonlyMap<string, number>
  /** Beyond deadlines, milliseconds: the latest. */
  readonly latestMs: number
}

export interface Faults {
  readonly stops: readonly Stop[]
  /** OS process ids of hosts, and when they were killed. */
  readonly killedHosts: ReadonlyMap<number, number>
  readonly gaps: readonly Gap[]
}

export interface Operation {
  readonly client: number
  readonly begun: Begun
  readonly end: Ended | undefined
  readonly unlockingMs: number | undefined
  readonly unlocked: { readonly at: number; readonly code?: string } | undefined
}

/** No answer to a call means that it never ran. */
const neverRan: ReadonlySet<string> = new Set(['ERR_FUNCTION_UNKNOWN', 'ERR_PAYLOAD_TOO_LARGE'])

export function audit(
  histories: readonly (readonly Line[])[],
  journal: readonly Entry[],
  shared: ReadonlyMap<string, SharedValues>,
  { stops, killedHosts, gaps }: Faults,
  { lateMs, allowanceMs }: { readonly lateMs: number; readonly allowanceMs: number },
): Audit {
  const operations = histories.flatMap((lines, client) => operationsOf(lines, client))
  const found: Found[] = []
  const counts: Record<string, number> = {}
  counts['executions'] = checkExecutions(operations, journal, allowanceMs, found)
  const latestMs = checkDeadlines(operations, stops, lateMs, found)
  counts['answers in time'] = operations.length
  checkAbsences(operations, gaps, lateMs, found)
  counts['lock intervals'] = checkLocks(operations, journal, found)
  counts['reads of keys of others'] = checkForeignReads(operations, killedHosts, allowanceMs, found)
  counts['values of keys of others'] = checkForeignValues(operations, startsOf(histories), found)
  counts['changes of shared keys'] = checkShared(operations, shared, found)
  Object.assign(counts, checkMailboxes(operations, journal, shared, allowanceMs, found))
  const answered = operations.filter(({ begun, end }) => begun.over !== undefined && end && end.code === undefined)
  return {
    ...{ found, counts, latestMs },
    operations: countBy(operations, ({ begun }) => begun.kind),
    carried: countBy(answered, ({ begun }) => begun.over!),
    served: countBy(answered, ({ begun }) => begun.route ?? 'nobody'),
    outcomes: countBy(operations, ({ end }) => end?.code ?? (end ? 'ok' : 'client killed')),
  }
}

function countBy<Item>(items: readonly Item[], name: (item: Item) => string): Map<string, number> {
  const counts = new Map<string, number>()
  for (const item of items) counts.set(name(item), (counts.get(name(item)) ?? 0) + 1)
  return counts
}

function operationsOf(lines: readonly Line[], client: number): Operation[] {
  const ends = new Map<number, Ended>()
  const unlocking = new Map<number, number>()
  const unlocked = new Map<number, { readonly at: number; readonly code?: string }>()
  for (const line of lines) {
    if ('end' in line) ends.set(line.end, line)
    else if ('unlocking' in line) unlocking.set(line.unlocking, line.at)
    else if ('unlocked' in line) unlocked.set(line.unlocked, line)
  }
  return lines.flatMap((line) =>
    'begin' in line
      ? [
          {
            ...{ client, begun: line, end: ends.get(line.begin) },
            ...{ unlockingMs: unlocking.get(line.begin), unlocked: unlocked.get(line.begin) },
          },
        ]
      : [],
  )
}

const tell = ({ client, begun, end }: Operation): string =>
  `client ${client}: ${JSON.stringify(begun)} → ${JSON.stringify(end)}`

/** @returns how many executions there were */
function checkExecutions(
  operations: readonly Operation[],
  journal: readonly Entry[],
  allowanceMs: number,
  found: Found[],
): number {
  const began = new Map<number, Entry[]>()
  const lastMs = new Map<number, number>()
  for (const entry of journal) {
    lastMs.set(entry.id, Math.max(lastMs.get(entry.id) ?? 0, entry.atMs))
    if (entry.event !== events.begin) continue
    const entries = began.get(entry.id)
    if (entries) entries.push(entry)
    else began.set(entry.id, [entry])
  }
  let executions = 0
  for (const operation of operations) {
    const { begun, end } = operation
    if (begun.fn === undefined) continue
    for (const [nth, id] of (begun.ids ?? []).entries()) {
      const runs = began.get(id) ?? []
      began.delete(id)
      executions += runs.length
      const say = (check: string, what: string): void => {
        const when = runs.map(({ atMs, pid }) => `by ${pid} ${Math.round(atMs - begun.at)} ms after`).join(', ')
        found.push({ check, text: `call ${id} ${what} (${when}): ${tell(operation)}` })
      }
      if (runs.length > 1 && begun.idempotent !== true) say('calls run at most once', `ran ${runs.length} times`)
      if (runs.length === 0 && nth === 0 && end && end.code === undefined && ran(begun))
        say('calls run at most once', 'was answered and never ran')
      if (runs.length > 0 && neverRan.has(end?.code ?? '')) say('calls run at most once', 'was refused and ran')
      const untilMs = begun.at + begun.timeoutMs + allowanceMs
      if (runs.some(({ atMs }) => atMs > untilMs)) say('calls end with their deadline', 'ran too late')
      else if ((lastMs.get(id) ?? 0) > untilMs) say('calls end with their deadline', 'ran too long')
    }
  }
  for (const [id, runs] of began)
    found.push({ check: 'calls run at most once', text: `call ${id} ran ${runs.length} times and nobody made it` })
  return executions
}

/** Many calls, and streams, may be left before their first result. */
const ran = ({ kind, fn }: Begun): boolean =>
  kind !== 'calls many' && kind !== 'call stream' && fn !== 'nothing' && fn !== 'n_nothing'

/** @returns the latest, milliseconds */
function checkDeadlines(
  operations: readonly Operation[],
  stops: readonly Stop[],
  lateMs: number,
  found: Found[],
): number {
  let latest = 0
  for (const operation of operations) {
    const { client, begun, end } = operation
    if (!end || end.lateMs === 0) continue
    let late = end.lateMs
    for (const stop of stops) {
      if (stop.client === client) late -= Math.max(0, Math.min(stop.toMs, end.at) - Math.max(stop.fromMs, begun.at))
    }
    latest = Math.max(latest, late)
    if (late > lateMs)
      found.push({ check: 'answers come in time', text: `${Math.round(late)} ms too late: ${tell(operation)}` })
  }
  return latest
}

/** That nobody serves a process is said only while that is so, or soon after: a client that was busy then has not looked since. */
function checkAbsences(operations: readonly Operation[], gaps: readonly Gap[], lateMs: number, found: Found[]): void {
  const check = (code: string | undefined, beganMs: number, endedMs: number, operation: Operation): void => {
    if (!(expected.absentPeer as readonly string[]).includes(code ?? '')) return
    if (gaps.some(({ fromMs, toMs }) => fromMs < endedMs && toMs + lateMs > beganMs)) return
    found.push({ check: 'documented errors', text: `there was an agent: ${tell(operation)}` })
  }
  for (const operation of operations) {
    const { begun, end, unlockingMs, unlocked } = operation
    if (end) check(end.code ?? end.result?.thrown, begun.at, end.at, operation)
    if (unlocked) check(unlocked.code, unlockingMs ?? begun.at, unlocked.at, operation)
  }
}

interface Interval {
  readonly fromMs: number
  readonly toMs: number
  readonly writes: boolean
  readonly who: string
}

/** Of each lock, when it certainly was held. @returns how many intervals */
function checkLocks(operations: readonly Operation[], journal: readonly Entry[], found: Found[]): number {
  const held = new Map<string, Interval[]>()
  const add = (lock: string, interval: Interval): void => {
    const intervals = held.get(lock)
    if (intervals) intervals.push(interval)
    else held.set(lock, [interval])
  }
  const processes = new Map<number, string>()
  for (const operation of operations) {
    const { begun, end, unlockingMs, unlocked } = operation
    for (const id of begun.ids ?? []) processes.set(id, begun.process)
    if (begun.kind !== 'lock' || !end || end.code !== undefined) continue
    // One that could not be released may have been lost at any time.
    const isReleased = unlocked !== undefined && unlocked.code === undefined
    const toMs = isReleased && unlockingMs !== undefined ? unlockingMs : end.at
    add(`${begun.process} ${begun.key}`, { fromMs: end.at, toMs, writes: begun.mode === 'write', who: tell(operation) })
  }
  const until = new Map<number, number>()
  for (const { id, event, atMs } of journal) if (event === events.unlocking) until.set(id, atMs)
  for (const { id, event, atMs, argument, pid } of journal) {
    if (event !== events.locked) continue
    const lock = `${processes.get(id)} ${lockNames[argument % 256]}`
    add(lock, { fromMs: atMs, toMs: until.get(id) ?? atMs, writes: argument >= 256, who: `call ${id} in ${pid}` })
  }
  let intervals = 0
  for (const [lock, all] of held) {
    all.sort((a, b) => a.fromMs - b.fromMs)
    intervals += all.length
    let open: Interval[] = []
    for (const next of all) {
      open = open.filter(({ toMs }) => toMs > next.fromMs)
      for (const other of open) {
        if (!next.writes && !other.writes) continue
        const both = `${(other.toMs - next.fromMs).toFixed(3)} ms`
        found.push({
          check: 'locks exclude',
          text: `${lock} was held by two for ${both}: ${other.who} and ${next.who}`,
        })
      }
      open.push(next)
    }
  }
  return intervals
}

/** Until when an operation on state may take effect: one whose outcome is unknown, because it was aborted, say, for long. */
const mayActUntil = ({ begun, end }: Operation, allowanceMs: number): number => {
  const answer = end?.result?.answer
  return end && answer && answer.outcome !== 'unknown' ? end.at : begun.at + begun.timeoutMs + allowanceMs
}

/** Against what the owners of the keys did. @returns how many reads */
function checkForeignReads(
  operations: readonly Operation[],
  killedHosts: ReadonlyMap<number, number>,
  allowanceMs: number,
  found: Found[],
): number {
  const writes = new Map<string, Operation[]>()
  for (const operation of operations) {
    const { key, write } = operation.begun
    if (key === undefined || write === undefined) continue
    const known = writes.get(key)
    if (known) known.push(operation)
    else writes.set(key, [operation])
  }
  let reads = 0
  for (const read of operations) {
    const { begun, end } = read
    const seen = end?.result?.seen
    if (!begun.kind.startsWith('foreign') || !end || !seen) continue
    reads++
    const version = seen.version === undefined ? undefined : BigInt(seen.version)
    const say = (text: string, write: Operation): void =>
      void found.push({ check: 'acknowledged state is kept', text: `${tell(read)} ${text} ${tell(write)}` })
    const owned = writes.get(begun.key ?? '') ?? []
    // What a host that was killed has published may be read until the connection notices.
    const fresh = begun.kind !== 'foreign read' || (killedHosts.get(begun.hostPid ?? 0) ?? Infinity) > end.at
    for (const write of owned) {
      const answer = write.end?.result?.answer
      if (!write.end || answer?.outcome !== 'done' || answer.version === undefined) continue
      const written = BigInt(answer.version)
      if (version === written && write.begun.at > end.at) say('read what was written only then:', write)
      if (fresh && version !== undefined && version < written && write.end.at < begun.at) say('missed', write)
      const mayBeDeleted = owned.some(
        (other) =>
          other.begun.write?.kind === 'delete' &&
          other.begun.at < end.at &&
          mayActUntil(other, allowanceMs) > write.begun.at,
      )
      if (fresh && version === undefined && write.end.at < begun.at && !mayBeDeleted) say('did not find', write)
    }
  }
  return reads
}

/** By key: the records with which the histories begin. */
function startsOf(histories: readonly (readonly Line[])[]): Map<string, readonly number[]> {
  const starts = new Map<string, readonly number[]>()
  for (const line of histories.flat()) {
    if (!('snapshot' in line)) continue
    for (const [key, { records }] of Object.entries(line.snapshot.registers)) starts.set(key, records ?? [])
  }
  return starts
}

/**
 * What is read of a key is made of records that were written to it, none twice, and is what its version was written with: a value
 * that is torn between two records has whole ones. @returns how many values
 */
function checkForeignValues(
  operations: readonly Operation[],
  starts: ReadonlyMap<string, readonly number[]>,
  found: Found[],
): number {
  const keys = new Map<number, string>()
  const versions = new Map<string, Write>()
  for (const { begun, end } of operations) {
    const { key, write } = begun
    if (key === undefined || write === undefined) continue
    for (const id of begun.ids ?? [begun.begin]) keys.set(id, key)
    const answer = end?.result?.answer
    if (answer?.outcome === 'done' && answer.version !== undefined) versions.set(`${key}@${answer.version}`, write)
  }
  let values = 0
  for (const read of operations) {
    const { key } = read.begun
    const seen = read.end?.result?.seen
    if (key === undefined || !read.begun.kind.startsWith('foreign') || !seen?.records) continue
    values++
    const { records } = seen
    const say = (text: string): void => void found.push({ check: 'values are whole', text: `${text}: ${tell(read)}` })
    const start = starts.get(key) ?? []
    const strange = records.find((id) => keys.get(Math.floor(id / recordsPerId)) !== key && !start.includes(id))
    if (strange !== undefined) say(`record ${strange} was not written to ${key}`)
    if (new Set(records).size < records.length) say('a record is there twice')
    const write = versions.get(`${key}@${seen.version}`)
    if (write && !isMadeBy(records, write)) say(`its version was written by ${JSON.stringify(write)}`)
  }
  return values
}

/** As far as a write says what it leaves. */
function isMadeBy(records: NonNullable<Seen['records']>, write: Write): boolean {
  switch (write.kind) {
    case 'set':
      return records.length === write.records.length && isAt(records, 0, write.records)
    case 'append':
      return isAt(records, records.length - write.records.length, write.records)
    case 'patch':
      return isAt(records, write.at, write.records)
    case 'delete':
      return false
  }
}

const isAt = (records: readonly number[], at: number, those: readonly number[]): boolean =>
  those.every((id, nth) => records[at + nth] === id)
