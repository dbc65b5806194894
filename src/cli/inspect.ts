import type { CommandModule } from 'yargs'
import { RuntimeDirectory } from '../agent/runtime_directory.js'
import { codeOf, messageOf } from '../errors.js'
import { native } from '../native/binding.js'
import { formatSize } from '../units.js'
import { commonOptions, withProcess, type CommonArguments } from './common.js'
import { exitCodes } from './exit_codes.js'
import { note, printJson } from './output.js'

interface InspectArguments extends CommonArguments {
  readonly id: string
}

/** What is said of a segment; see native/segment/inspect.h. */
interface SegmentReport {
  readonly refused?: string
  readonly unchecked?: readonly string[]
  readonly violations?: readonly string[]
}

export const inspect: CommandModule<object, InspectArguments> = {
  command: 'inspect <id>',
  describe: 'everything about a process: hosts, workers, counters, and whether its segment is sound',
  builder: (yargs) =>
    commonOptions(yargs)
      .positional('id', {
        type: 'string',
        demandOption: true,
        describe: 'process id, of a process that does not run, too; or the name of a segment',
      })
      .example('$0 inspect grid --json', '')
      .example('$0 inspect /praas-1000-…', 'a segment by its name'),
  handler: async (args) => {
    if (segmentName.test(args.id)) return printSegment(args, args.id, '')
    try {
      await inspectProcess(args)
    } catch (error) {
      // The one that cannot be reached may have left its segment, and a host that refuses that may be why.
      const left = args.url === undefined ? leftSegment(args) : undefined
      if (left === undefined) throw error
      note(messageOf(error))
      printSegment(args, left, args.id)
    }
  },
}

const segmentName = /^\/praas-\d+-[0-9a-f]{24}$/

function inspectProcess(args: InspectArguments): Promise<void> {
  return withProcess({ ...args, process: args.id }, async (found) => {
    const description = await found.describe()
    const statistics = await found.statistics()
    const segment = inspectSegment(description.segment, args.id)
    if (args.json) printJson({ ...description, transport: found.connection, statistics, segment })
    else {
      const { host, port, memoryBytes, workers, ...rest } = description
      process.stdout.write(
        [
          ...Object.entries(rest).map(([name, value]) => `${name.padEnd(12)} ${String(value)}`),
          `${'address'.padEnd(12)} ${host}:${port}`,
          `${'memory'.padEnd(12)} ${formatSize(memoryBytes)}`,
          `${'workers'.padEnd(12)} ${workers.map(({ pid, kind, leased, state }) => `${pid} (${leased ? 'leased ' : ''}${kind}, ${state})`).join(', ')}`,
          `${'transport'.padEnd(12)} ${found.connection?.transport ?? '-'} ${found.connection?.reason ?? ''}`,
          `statistics ${JSON.stringify(statistics, undefined, 2)}`,
          ...segmentLines(segment),
          '',
        ].join('\n'),
      )
    }
    setExitCode(segment)
  })
}

/** The name of what a process left in the runtime directory, if it is still there. */
function leftSegment({ id, runtimeDir }: InspectArguments): string | undefined {
  const name = RuntimeDirectory.find(runtimeDir)?.processPaths(id).segment
  try {
    if (name !== undefined) native().segmentLocked(name)
    return name
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

function printSegment({ json }: InspectArguments, name: string, processId: string): void {
  const segment = JSON.parse(native().inspectSegment(name, processId)) as SegmentReport
  if (json) printJson({ segment })
  else process.stdout.write(`${segmentLines(segment).join('\n')}\n`)
  setExitCode(segment)
}

/** The segment as this machine sees it; on another machine there is none. */
function inspectSegment(name: string, processId: string): SegmentReport | string {
  try {
    return JSON.parse(native().inspectSegment(name, processId)) as SegmentReport
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 'on another machine'
    throw error
  }
}

/** What is wrong comes last, where it is seen. */
function segmentLines(segment: SegmentReport | string): string[] {
  const lines = [`segment ${JSON.stringify(segment, undefined, 2)}`]
  if (typeof segment === 'string') return lines
  for (const finding of segment.unchecked ?? []) lines.push(`unchecked    ${finding}`)
  if (segment.refused !== undefined) lines.push(`refused      ${segment.refused}`)
  for (const finding of segment.violations ?? []) lines.push(`damaged      ${finding}`)
  return lines
}

function setExitCode(segment: SegmentReport | string): void {
  if (typeof segment === 'string') return
  if (segment.refused !== undefined || (segment.violations ?? []).length > 0) process.exitCode = exitCodes.damaged
}
