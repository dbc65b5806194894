/** Runs one suite and gives its report. */
import { machine, refuseDebugBuilds, versions } from './machine.js'
import type { ChosenSuite } from './options.js'
import type { Progress } from './progress.js'
import type { Report } from './result.js'

/**
 * @param command  as the report names it
 * @throws {PraasError} `ERR_UNSUPPORTED` for a debug build, before anything is started
 */
export async function reportOf(command: string, { run, pinning }: ChosenSuite, progress: Progress): Promise<Report> {
  await refuseDebugBuilds()
  // Asked first: pinning changes how many cores there seem to be.
  const where = { command, machine: machine(pinning), versions: versions() }
  return { ...where, ...(await run(progress)) }
}
