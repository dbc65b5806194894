import type { CommandModule } from 'yargs'
import { parseSize } from '../units.js'
import { commonOptions, withCluster, type CommonArguments } from './common.js'

interface LogsArguments extends CommonArguments {
  readonly id: string
  readonly follow: boolean
  readonly tail: string
}

export const logs: CommandModule<object, LogsArguments> = {
  command: 'logs <id>',
  describe: 'show what the workers of a process print',
  builder: (yargs) =>
    commonOptions(yargs)
      .positional('id', { type: 'string', demandOption: true, describe: 'process id' })
      .option('follow', { alias: 'f', type: 'boolean', default: false, describe: 'go on until interrupted' })
      .option('tail', { type: 'string', default: '64KiB', describe: 'how much of the end to begin with' })
      .example('$0 logs grid -f', ''),
  handler: (args) =>
    withCluster(args, async (cluster) => {
      const tailBytes = Math.max(1, parseSize(args.tail, '--tail'))
      for await (const text of cluster.logs(args.id, { tailBytes, follow: args.follow })) process.stdout.write(text)
    }),
}
