/** What OS processes use, as /proc tells. */
import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as delay } from 'node:timers/promises'
import { codeOf } from '../errors.js'

/** A process and everything below it. */
export function descendantsOf(pid: number): number[] {
  const children = tasksOf(pid).flatMap((task) =>
    (read(`/proc/${pid}/task/${task}/children`) ?? '').split(' ').filter(Boolean).map(Number),
  )
  return [pid, ...children.flatMap(descendantsOf)]
}

/** Time all threads of these processes have run so far, nanoseconds. */
export function cpuNs(pids: readonly number[]): number {
  const times = pids.flatMap((pid) =>
    tasksOf(pid).map((task) => Number((read(`/proc/${pid}/task/${task}/schedstat`) ?? '0').split(' ')[0])),
  )
  return times.reduce((sum, time) => sum + time, 0)
}

/** Memory that would be free without the process, bytes. */
export function privateBytes(pid: number): number {
  const fields = [...(read(`/proc/${pid}/smaps_rollup`) ?? '').matchAll(/^Private_\w+:\s+(\d+) kB$/gm)]
  return fields.reduce((sum, [, kilobytes]) => sum + Number(kilobytes) * 1024, 0)
}

const stillMs = 200
/** Of a core, in which a process that only waits may wake now and then. */
const stillShare = 0.02

/** Resolves when these processes, asked for anew each time, have come to rest. */
export async function untilStill(pids: () => readonly number[], longestMs = 30_000): Promise<void> {
  const end = performance.now() + longestMs
  for (let calm = 0; calm < 2 && performance.now() < end;) {
    const before = cpuNs(pids())
    await delay(stillMs)
    calm = cpuNs(pids()) - before < stillMs * 1e6 * stillShare ? calm + 1 : 0
  }
}

function tasksOf(pid: number): string[] {
  try {
    return readdirSync(`/proc/${pid}/task`)
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return []
    throw error
  }
}

/** undefined: the process has ended. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return undefined
    throw error
  }
}
