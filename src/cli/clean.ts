import type { CommandModule } from 'yargs'
import { cleanRuntimeDirectory } from '../agent/clean.js'
import { RuntimeDirectory } from '../agent/runtime_directory.js'
import { commonOptions, type CommonArguments } from './common.js'
import { note, printJson } from './output.js'

interface CleanArguments extends CommonArguments {
  readonly dryRun: boolean
}

export const clean: CommandModule<object, CleanArguments> = {
  command: 'clean',
  describe: 'remove what dead clusters left behind, with the state of their processes',
  builder: (yargs) =>
    commonOptions(yargs)
      .option('dry-run', { type: 'boolean', default: false, describe: 'only say what would go' })
      .example('$0 clean --dry-run', '') as never,
  handler: (args) => {
    const directory = RuntimeDirectory.find(args.runtimeDir)
    const { removed, alive } = directory ? cleanRuntimeDirectory(directory, args) : { removed: [], alive: 0 }
    if (args.json) return printJson({ removed, alive })
    for (const { kind, name } of removed) note(`${args.dryRun ? 'would remove' : 'removed'} ${kind} ${name}`)
    note(`${removed.length} objects ${args.dryRun ? 'would go' : 'removed'}; ${alive} processes are alive`)
  },
}
