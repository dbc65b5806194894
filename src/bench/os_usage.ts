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

export function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** Memory without a name in the file system that is shared with other processes: windows are of this kind. */
export function mappedWindows(pid: number): number {
  return read(`/proc/${pid}/maps`)?.match(/\/memfd:/g)?.length ?? 0
}

/** Not when it has ended and nobody has asked how. */
export function isRunning(pid: number): boolean {
  const state = /\) (\w) /.exec(read(`/proc/${pid}/stat`) ?? '')?.[1] ?? 'X'
  return state !== 'Z' && state !== 'X'
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
