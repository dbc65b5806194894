import type { CommandModule } from 'yargs'
import { codeOf } from '../errors.js'
import { native } from '../native/binding.js'
import { formatSize } from '../units.js'
import { commonOptions, withProcess, type CommonArguments } from './common.js'
import { exitCodes } from './exit_codes.js'
import { printJson } from './output.js'

interface InspectArguments extends CommonArguments {
  readonly id: string
}

export const inspect: CommandModule<object, InspectArguments> = {
  command: 'inspect <id>',
  describe: 'everything about a process: hosts, workers, counters, and whether its segment is sound',
  builder: (yargs) =>
    commonOptions(yargs)
      .positional('id', { type: 'string', demandOption: true, describe: 'process id' })
      .example('$0 inspect grid --json', ''),
  handler: (args) =>
    withProcess({ ...args, process: args.id }, async (found) => {
      const description = await found.describe()
      const statistics = await found.statistics()
      const segment = inspectSegment(description.segment)
      if (args.json) printJson({ ...description, transport: found.connection, statistics, segment })
      else {
        const { host, port, memoryBytes, workers, ...rest } = description
        process.stdout.write(
          [
            ...Object.entries(rest).map(([name, value]) => `${name.padEnd(12)} ${String(value)}`),
            `${'address'.padEnd(12)} ${host}:${port}`,
            `${'memory'.padEnd(12)} ${formatSize(memoryBytes)}`,
            `${'workers'.padEnd(12)} ${workers.map(({ pid, state }) => `${pid} (${state})`).join(', ')}`,
            `${'transport'.padEnd(12)} ${found.connection?.transport ?? '-'} ${found.connection?.reason ?? ''}`,
            `statistics ${JSON.stringify(statistics, undefined, 2)}`,
            `segment ${JSON.stringify(segment, undefined, 2)}`,
            '',
          ].join('\n'),
        )
      }
      if (violations(segment).length > 0) process.exitCode = exitCodes.failed
    }),
}

/** The segment as this machine sees it; on another machine there is none. */
function inspectSegment(name: string): unknown {
  try {
    return JSON.parse(native().inspectSegment(name)) as unknown
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return 'on another machine'
    throw error
  }
}

function violations(segment: unknown): readonly unknown[] {
  const found = (segment as { violations?: unknown } | null)?.violations
  return Array.isArray(found) ? found : []
}
