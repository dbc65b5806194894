/** Which core runs what: clients on one, servers on the other, as MPI places its ranks. Without it the scheduler decides. */
import { execFileSync } from 'node:child_process'
import { readdirSync } from 'node:fs'

export interface Pinning {
  readonly client: number
  readonly server: number
}

let pinning: Pinning | undefined

/** Moves this process to its core. What is started later inherits that and is moved by `pinServer` or `pinThreads`. */
export function pinClients(cores: Pinning): void {
  pinning = cores
  moveTo(cores.client, ['--all-tasks'], process.pid)
}

/** Moves a process with all of its threads to the servers' core, if there is one. */
export function pinServer(pid: number | undefined): void {
  if (pinning && pid !== undefined) moveTo(pinning.server, ['--all-tasks'], pid)
}

/** Runs `start` and moves the threads that it started to the servers' core, if there is one. */
export async function pinThreads<Started>(start: () => Promise<Started>): Promise<Started> {
  if (!pinning) return start()
  const before = new Set(threads())
  const started = await start()
  for (const thread of threads()) if (!before.has(thread)) moveTo(pinning.server, [], Number(thread))
  return started
}

/** The command for a program that places its parts on both cores by itself. */
export function onBothCores(command: string, args: readonly string[]): [string, string[]] {
  if (!pinning) return [command, [...args]]
  return ['taskset', ['--cpu-list', `${pinning.client},${pinning.server}`, command, ...args]]
}

function threads(): string[] {
  return readdirSync('/proc/self/task')
}

function moveTo(core: number, options: readonly string[], id: number): void {
  execFileSync('taskset', [...options, '--cpu-list', '--pid', String(core), String(id)], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
}
