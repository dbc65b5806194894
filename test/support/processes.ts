/** OS processes and their children. */
import { readdirSync, readFileSync } from 'node:fs'
import { codeOf } from '../../src/errors.js'

/** Processes whose parent is `pid`, zombies included. None of one that has ended, or of a thread of it. */
export function childrenOf(pid: number): number[] {
  const tasks = `/proc/${pid}/task`
  return unlessGone(() => readdirSync(tasks), []).flatMap((task) =>
    unlessGone(() => readFileSync(`${tasks}/${task}/children`, 'utf8'), '')
      .split(' ')
      .filter(Boolean)
      .map(Number),
  )
}

function unlessGone<Value>(read: () => Value, otherwise: Value): Value {
  try {
    return read()
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return otherwise
    throw error
  }
}

/** Children, their children, and so on. */
export function descendantsOf(pid: number): number[] {
  return childrenOf(pid).flatMap((child) => [child, ...descendantsOf(child)])
}
