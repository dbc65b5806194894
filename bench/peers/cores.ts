/** Which core runs what: clients on one, servers on the other, as MPI places its ranks. Without it the scheduler decides. */
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { pinProcess, type Pinning } from '../../src/bench/pinning.js'

let pinning: Pinning | undefined

/** Moves this process to its core. What is started later inherits that and is moved by `moveServer` or `moveThreads`. */
export async function useCores(cores: Pinning | undefined): Promise<void> {
  pinning = cores
  if (cores) await pinProcess(process.pid, cores.client)
}

/** What was chosen with `useCores`. */
export function chosenCores(): Pinning | undefined {
  return pinning
}

/** Moves a process with all of its threads to the servers' core, if there is one. */
export async function moveServer(pid: number | undefined): Promise<void> {
  if (pinning && pid !== undefined) await pinProcess(pid, pinning.worker)
}

/** Runs `start` and moves the threads that it started to the servers' core, if there is one. */
export async function moveThreads<Started>(start: () => Promise<Started>): Promise<Started> {
  if (!pinning) return start()
  const before = new Set(threads())
  const started = await start()
  for (const thread of threads().filter((id) => !before.has(id))) {
    execFileSync('taskset', ['--cpu-list', '--pid', String(pinning.worker), thread], { stdio: 'ignore' })
  }
  return started
}

/** The command for a program that places its parts on both cores by itself. */
export function onBothCores(program: string, args: readonly string[]): { program: string; args: readonly string[] } {
  if (!pinning) return { program, args }
  const cores = `${pinning.client},${pinning.worker}`
  return { program: 'taskset', args: ['--cpu-list', cores, program, ...args] }
}

function threads(): string[] {
  return readdirSync('/proc/self/task')
}
