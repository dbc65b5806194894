/**
 * Keys that all clients change at the same time: every change that was acknowledged is there, once, in the order of versions,
 * and no two were made of the same version.
 */
import type { Found, Operation } from './audit.js'
import { recordsPerId } from './bytes.js'
import { sharedKeys } from './plan.js'

/** Of a process, when everything stands still: ids of records. */
export interface SharedValues {
  readonly log: readonly number[]
  readonly register: readonly number[]
  /** Records of the messages that nobody has taken, by mailbox. */
  readonly messages: Readonly<Record<string, readonly number[]>>
}

/** @returns how many changes */
export function checkShared(
  operations: readonly Operation[],
  values: ReadonlyMap<string, SharedValues>,
  found: Found[],
): number {
  let changes = 0
  for (const [process, { log, register }] of values) {
    const of = (key: string): Operation[] =>
      operations.filter(({ begun }) => begun.process === process && begun.key === key && begun.write !== undefined)
    const appends = of(sharedKeys.log)
    const sets = of(sharedKeys.register)
    changes += appends.length + sets.length
    const say = (text: string): void => void found.push({ check: 'acknowledged state is kept', text })
    checkLog(process, appends, log, say)
    checkRegister(process, sets, register, say)
  }
  return changes
}

type Say = (text: string) => void

const versionOf = ({ end }: Operation): bigint | undefined => {
  const answer = end?.result?.answer
  return answer?.outcome === 'done' && answer.version !== undefined ? BigInt(answer.version) : undefined
}
/** Whether it may have happened although nobody was told. */
const isUnknown = ({ end }: Operation): boolean => {
  const outcome = end?.result?.answer?.outcome
  return outcome === undefined || outcome === 'unknown'
}
const tell = ({ client, begun, end }: Operation): string =>
  `client ${client}: ${JSON.stringify(begun)} → ${JSON.stringify(end)}`

function checkLog(process: string, appends: readonly Operation[], log: readonly number[], say: Say): void {
  const places = new Map<number, number[]>()
  for (const [at, record] of log.entries()) {
    const id = Math.floor(record / recordsPerId)
    const known = places.get(id)
    if (known) known.push(at)
    else places.set(id, [at])
  }
  const acknowledged: { readonly version: bigint; readonly at: number; readonly append: Operation }[] = []
  for (const append of appends) {
    const at = places.get(append.begun.begin) ?? []
    places.delete(append.begun.begin)
    const version = versionOf(append)
    if (at.length > 1) say(`appended ${at.length} times: ${tell(append)}`)
    else if (version === undefined && at.length === 1 && !isUnknown(append))
      say(`refused and appended: ${tell(append)}`)
    else if (version !== undefined && at.length === 0) say(`lost: ${tell(append)}`)
    else if (version !== undefined) acknowledged.push({ version, at: at[0]!, append })
  }
  for (const id of places.keys()) say(`the log of ${process} has a record of operation ${id}, which appended nothing`)
  acknowledged.sort((a, b) => (a.version < b.version ? -1 : 1))
  for (const [nth, { at, append }] of acknowledged.entries()) {
    const before = acknowledged[nth - 1]
    if (before && before.at > at) say(`before an older version: ${tell(append)} and ${tell(before.append)}`)
  }
}

function checkRegister(process: string, sets: readonly Operation[], register: readonly number[], say: Say): void {
  const winners = new Map<string, Operation>()
  let last: Operation | undefined
  for (const each of sets) {
    const { write } = each.begun
    const version = versionOf(each)
    if (version === undefined || write?.kind !== 'set' || write.ifVersion === undefined) continue
    const other = winners.get(write.ifVersion)
    // Of a key that is not there there may be more than one: never here, where nobody deletes it meanwhile.
    if (other) say(`made of the same version: ${tell(each)} and ${tell(other)}`)
    winners.set(write.ifVersion, each)
    if (!last || version > versionOf(last)!) last = each
  }
  const [record] = register
  const writer = record === undefined ? undefined : Math.floor(record / recordsPerId)
  // One of unknown outcome may have been last if it was made of what the last known one has left, or of something later.
  const left = (last && versionOf(last)) ?? 0n
  const mayBeLast = (each: Operation): boolean => {
    const { write } = each.begun
    return isUnknown(each) && write?.kind === 'set' && BigInt(write.ifVersion ?? 0) >= left
  }
  const explained = sets.some((each) => each.begun.begin === writer && (each === last || mayBeLast(each)))
  if (register.length > 1 || (writer === undefined ? last !== undefined : !explained))
    say(`the register of ${process} has ${JSON.stringify(register)} after ${last ? tell(last) : 'nothing'}`)
}
