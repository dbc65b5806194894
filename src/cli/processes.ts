/** Commands about processes as a whole: create, ps, stop, rm. */
import type { Argv, CommandModule } from 'yargs'
import { hostIsAlive, readRegistry, removeObject } from '../agent/named_objects.js'
import { RuntimeDirectory } from '../agent/runtime_directory.js'
import { codeOf } from '../errors.js'
import { formatDuration, formatSize } from '../units.js'
import {
  commonOptions,
  createFrom,
  createOptions,
  timeoutFrom,
  withCluster,
  type CommonArguments,
  type CreateArguments,
} from './common.js'
import { note, printJson, printTable } from './output.js'

interface IdArguments extends CommonArguments {
  readonly id: string
  readonly timeout?: string | undefined
}

interface CreateCommandArguments extends IdArguments, CreateArguments {
  readonly app?: string | undefined
}

export const create: CommandModule<object, CreateCommandArguments> = {
  command: 'create <id>',
  describe: 'create a process unless it is there',
  builder: (yargs) =>
    createOptions(idArgument(yargs))
      .option('app', {
        type: 'string',
        describe: 'module, shared object or function table, or the name of a deployed application',
      })
      .example('$0 create grid --app app.ts --workers 4', ''),
  handler: (args) =>
    withCluster(args, async (cluster) => {
      const app = args.app === undefined ? {} : { app: args.app }
      const process = await cluster.process(args.id, { ...createFrom(args), ...app, ...timeoutFrom(args.timeout) })
      const description = await process.describe()
      if (args.json) printJson(description)
      else note(`process ${description.id} is ${description.state} at ${description.host}:${description.port}`)
    }),
}

export const ps: CommandModule<object, CommonArguments> = {
  command: 'ps',
  aliases: ['ls'],
  describe: 'list processes',
  builder: (yargs) => commonOptions(yargs),
  handler: (args) =>
    withCluster(args, async (cluster) => {
      const processes = await cluster.processes()
      if (args.json) return printJson(processes)
      printTable(
        ['ID', 'STATE', 'APP', 'PID', 'WORKERS', 'MEMORY', 'ADDRESS', 'RESTARTS', 'AGE'],
        processes.map((process) => [
          process.id,
          process.state,
          process.app,
          process.pid ?? '-',
          process.workers.filter(({ state, leased }) => state === 'ready' && !leased).length,
          formatSize(process.memoryBytes),
          `${process.host}:${process.port}`,
          process.restarts,
          formatDuration(Math.max(0, Date.now() - process.createdMs)),
        ]),
      )
    }),
}

export const stop: CommandModule<object, IdArguments> = {
  command: 'stop <id>',
  describe: 'end a process; its state stays for the next one of this id',
  builder: (yargs) => idArgument(yargs).example('$0 stop grid', 'the next `create grid` finds its state'),
  handler: (args) =>
    withCluster(args, async (cluster) => {
      await cluster.stop(args.id, { keep: true, ...timeoutFrom(args.timeout) })
      report(args, `process ${args.id} has ended; its state is kept`)
    }),
}

export const rm: CommandModule<object, IdArguments> = {
  command: 'rm <id>',
  describe: 'end a process and delete its state',
  builder: (yargs) => idArgument(yargs).example('$0 rm grid', ''),
  handler: async (args) => {
    try {
      await withCluster(args, (cluster) => cluster.stop(args.id, timeoutFrom(args.timeout)))
    } catch (error) {
      // No cluster has it, but a stopped one may have left its state.
      if (!['ERR_PROCESS_UNKNOWN', 'ERR_CLUSTER_UNREACHABLE'].includes(codeOf(error) ?? '')) throw error
      if (args.url !== undefined || !removeLeftState(args)) throw error
    }
    report(args, `process ${args.id} and its state are gone`)
  },
}

/** @returns whether there was any. */
function removeLeftState({ id, runtimeDir }: IdArguments): boolean {
  const directory = RuntimeDirectory.find(runtimeDir)
  if (!directory) return false
  const paths = directory.processPaths(id)
  const registry = readRegistry(paths.objects)
  if (hostIsAlive(registry)) return false
  const removed = registry.objects.filter((object) => removeObject(object))
  directory.removeProcessFolder(id)
  return removed.length > 0
}

function idArgument(yargs: Argv): Argv<IdArguments> {
  return commonOptions(yargs)
    .positional('id', { type: 'string', demandOption: true, describe: 'process id' })
    .option('timeout', { alias: 't', type: 'string', describe: 'how long it may take, such as 10s' })
}

function report(args: IdArguments, text: string): void {
  if (args.json) printJson({ id: args.id })
  else note(text)
}
