/** OS processes by pid and start time, which together name one for good: pids are used again. */
import { readFileSync } from 'node:fs'
import { codeOf } from '../errors.js'

export interface OsProcess {
  readonly pid: number
  /** Field 22 of /proc/PID/stat. */
  readonly startTime: string
}

/** Start time of a running process; undefined when there is none. One that has ended and was not collected does not run. */
export function startTimeOf(pid: number): string | undefined {
  let stat: string
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return undefined
    throw error
  }
  // The name in parentheses may hold anything, spaces and parentheses too.
  const [state, ...fields] = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return state === 'Z' || state === 'X' ? undefined : fields[18]
}

/** Whether the very process that was recorded still runs. */
export function isAlive({ pid, startTime }: OsProcess): boolean {
  const running = startTimeOf(pid)
  return running !== undefined && running === startTime
}
