/**
 * The model of mailboxes: a message that was put is taken once, by one function, before those that were put later; until then it
 * waits, whatever dies. What a function had taken and not told anybody when it was killed is gone with it, and nothing else is.
 *
 * When functions have put and taken something is in the journal, which they outlive: a message was put between the beginning of
 * its call and its entry, and taken likewise.
 */
import type { Found, Operation } from './audit.js'
import { recordsPerId } from './bytes.js'
import { events, type Entry } from './journal.js'
import type { SharedValues } from './shared.js'

const check = 'messages are taken once, in order'

interface Message {
  readonly record: number
  readonly put: Operation
  /** Undefined: the function that was to put it never ran. */
  readonly fromMs: number | undefined
  /** When it certainly was there; undefined when nobody was told. */
  readonly toMs: number | undefined
  readonly refused: boolean
}

interface Take {
  readonly get: Operation
  readonly fromMs: number
  /** When it certainly was taken; of what is left at the end never. */
  readonly toMs: number
}

/** A mailbox during one epoch. */
interface Box {
  readonly messages: Message[]
  readonly takes: Map<number, Take[]>
  /** Found nothing. */
  readonly empty: Take[]
  /** May have taken a message. */
  readonly unknown: Take[]
  /** Records. */
  readonly left: readonly number[]
}

/** @returns how many messages were put and taken */
export function checkMailboxes(
  operations: readonly Operation[],
  journal: readonly Entry[],
  values: ReadonlyMap<string, SharedValues>,
  allowanceMs: number,
  found: Found[],
): Record<string, number> {
  const entries = new Map<number, Map<number, Entry>>()
  for (const entry of journal) {
    const known = entries.get(entry.id) ?? new Map<number, Entry>()
    entries.set(entry.id, known.set(entry.event, entry))
  }
  const boxes = new Map<string, Box>()
  for (const [process, { messages }] of values)
    for (const [key, left] of Object.entries(messages)) boxes.set(`${process} ${key}`, newBox(left))
  for (const operation of operations) {
    const { begun } = operation
    if (!begun.kind.startsWith('message')) continue
    const name = `${begun.process} ${begun.key}`
    const box = boxes.get(name) ?? newBox([])
    boxes.set(name, box)
    const noted = entries.get(begun.begin) ?? new Map<number, Entry>()
    if (begun.kind === 'message put') addPut(box, operation, noted)
    else addGet(box, operation, noted, allowanceMs, found)
  }
  let put = 0
  let taken = 0
  for (const [name, box] of boxes) {
    checkBox(box, (text) => void found.push({ check, text: `mailbox ${name}: ${text}` }))
    put += box.messages.filter(({ toMs }) => toMs !== undefined).length
    taken += box.takes.size
  }
  return { 'messages put': put, 'messages taken': taken }
}

const newBox = (left: readonly number[]): Box => ({ messages: [], takes: new Map(), empty: [], unknown: [], left })

function addPut(box: Box, put: Operation, noted: ReadonlyMap<number, Entry>): void {
  box.messages.push({
    record: put.begun.begin * recordsPerId,
    put,
    fromMs: noted.get(events.begin)?.atMs,
    toMs: noted.get(events.put)?.atMs,
    refused: noted.has(events.refused),
  })
}

function addGet(
  box: Box,
  get: Operation,
  noted: ReadonlyMap<number, Entry>,
  allowanceMs: number,
  found: Found[],
): void {
  const began = noted.get(events.begin)
  const took = noted.get(events.took)
  const empty = noted.get(events.empty)
  const told = get.end?.result?.seen?.records
  if (told && told.join() !== (took ? String(took.subject) : ''))
    found.push({ check: 'results are those of the call', text: `took ${took?.subject}: ${tell(get)}` })
  if (!began) return
  const fromMs = began.atMs
  if (took) box.takes.set(took.subject, [...(box.takes.get(took.subject) ?? []), { get, fromMs, toMs: took.atMs }])
  else if (empty) box.empty.push({ get, fromMs, toMs: empty.atMs })
  else if (!noted.has(events.failed))
    box.unknown.push({ get, fromMs, toMs: get.begun.at + get.begun.timeoutMs + allowanceMs })
}

const tell = ({ client, begun, end }: Operation): string =>
  `client ${client}: ${JSON.stringify(begun)} → ${JSON.stringify(end)}`

type Say = (text: string) => void

function checkBox(box: Box, say: Say): void {
  const { messages, takes, empty, left } = box
  const known = new Map(messages.map((message) => [message.record, message]))
  const came = [...[...takes].flatMap(([record, each]) => each.map(() => record)), ...left]
  const times = new Map<number, number>()
  for (const record of came) times.set(record, (times.get(record) ?? 0) + 1)
  for (const [record, count] of times) {
    const message = known.get(record)
    if (!message) say(`record ${record} was never put`)
    else if (message.refused || message.fromMs === undefined) say(`there was ${tell(message.put)}, which put nothing`)
    if (count > 1) say(`record ${record} came ${count} times`)
  }
  checkOrder(box, say)
  for (const { get, fromMs, toMs } of empty) {
    const missed = messages.find(
      (message) => message.toMs !== undefined && message.toMs < fromMs && waits(box, message, toMs),
    )
    if (missed) say(`found nothing: ${tell(get)}, and there was ${tell(missed.put)}`)
  }
  const lost = messages.filter(({ record, toMs }) => toMs !== undefined && !times.has(record))
  for (const message of notTakenBy(box, lost)) say(`lost: ${tell(message.put)}`)
}

/** Whether it certainly was still there then. */
function waits({ takes, left }: Box, { record }: Message, atMs: number): boolean {
  const [take] = takes.get(record) ?? []
  return take ? take.fromMs > atMs : left.includes(record)
}

/** What was put certainly after it. */
const after = (messages: readonly Message[], { toMs = Infinity }: Message): Message[] =>
  messages.filter(({ fromMs }) => fromMs !== undefined && fromMs > toMs)

function checkOrder(box: Box, say: Say): void {
  const { messages, takes, left } = box
  const place = new Map(left.map((record, at) => [record, at]))
  for (const earlier of messages) {
    const [first] = takes.get(earlier.record) ?? []
    const firstAt = place.get(earlier.record)
    if (!first && firstAt === undefined) continue
    for (const later of after(messages, earlier)) {
      const [second] = takes.get(later.record) ?? []
      const secondAt = place.get(later.record)
      const overtook = second
        ? second.toMs < (first?.fromMs ?? Infinity)
        : firstAt !== undefined && secondAt !== undefined && secondAt < firstAt
      if (overtook) say(`${tell(later.put)} came before ${tell(earlier.put)}`)
    }
  }
}

/**
 * Messages that no function can have taken without telling: one takes one at most, while it was there, and before another that
 * was put later was taken.
 */
function notTakenBy({ messages, takes, unknown }: Box, lost: readonly Message[]): Message[] {
  const taker = new Map<Take, Message>()
  const candidates = new Map<Message, readonly Take[]>(
    lost.map((message) => {
      const overtaken = after(messages, message).flatMap(({ record }) => takes.get(record) ?? [])
      const untilMs = Math.min(...overtaken.map(({ toMs }) => toMs))
      return [message, unknown.filter(({ fromMs, toMs }) => fromMs < untilMs && toMs > (message.fromMs ?? 0))]
    }),
  )
  const assign = (message: Message, tried: Set<Take>): boolean => {
    for (const take of candidates.get(message) ?? []) {
      if (tried.has(take)) continue
      tried.add(take)
      const other = taker.get(take)
      if (other && !assign(other, tried)) continue
      taker.set(take, message)
      return true
    }
    return false
  }
  return lost.filter((message) => !assign(message, new Set()))
}
