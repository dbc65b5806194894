/** Which core runs what. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { ArgumentError, messageOf, PraasError } from '../errors.js'
import { parseIntegers } from './lists.js'

export interface Pinning {
  readonly client: number
  readonly worker: number
  readonly host: number
}

const mostCores = 4095

/** `CLIENT,WORKER` or `CLIENT,WORKER,HOST`; the host is with the worker otherwise. */
export function parsePinning(text: string): Pinning {
  // Not as a list of different numbers: all may be on one core.
  const parts = text.split(',').flatMap((part) => parseIntegers('--pin', part, 0, mostCores))
  const [client, worker, host = worker] = parts
  if (client === undefined || worker === undefined || host === undefined || parts.length > 3) {
    throw new ArgumentError(`--pin: expected CLIENT,WORKER or CLIENT,WORKER,HOST, received ${JSON.stringify(text)}`)
  }
  return { client, worker, host }
}

/** Moves all threads of a process to one core. */
export async function pinProcess(pid: number, core: number): Promise<void> {
  try {
    await promisify(execFile)('taskset', ['--all-tasks', '--cpu-list', '--pid', String(core), String(pid)])
  } catch (error) {
    throw new PraasError('ERR_UNSUPPORTED', `--pin: taskset of process ${pid} to core ${core}: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

/** As the floors take it. */
export function floorPinning(pinning: Pinning | undefined): string[] {
  return pinning ? ['--pin', `${pinning.client},${pinning.worker}`] : []
}
