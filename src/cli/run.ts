import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import type { CommandModule } from 'yargs'
import { Cluster } from '../client/cluster.js'
import type { DeployOptions } from '../client/deploy_options.js'
import type { AppDescription } from '../control.js'
import { native } from '../native/binding.js'
import { commonOptions, createFrom, createOptions, type CommonArguments, type CreateArguments } from './common.js'
import { exitCodes } from './exit_codes.js'
import { during, note, printJson } from './output.js'
import { lossOfStdout, printLog } from './printed_log.js'

/** For who reads standard output to take the last of it. */
const lastWordsMs = 1_000

interface RunArguments extends CommonArguments, CreateArguments {
  readonly app?: string | undefined
  readonly process?: string | undefined
  readonly listen?: string | undefined
  readonly keep: boolean
  readonly dev: boolean
  readonly prewarm?: number | undefined
  readonly external?: string[] | undefined
  readonly native?: string[] | undefined
  readonly maxOutput?: string | undefined
}

export const run: CommandModule<object, RunArguments> = {
  command: 'run [app]',
  describe: 'start a cluster here and serve an application until interrupted',
  builder: (yargs) =>
    createOptions(commonOptions(yargs))
      .positional('app', {
        type: 'string',
        describe: 'module, shared object or function table (.json); without: an empty cluster',
      })
      .option('native', { type: 'string', array: true, describe: 'shared objects with functions of the application' })
      .option('max-output', { type: 'string', describe: 'largest result of raw native functions, such as 4MiB (1MiB)' })
      .option('process', { alias: 'p', type: 'string', describe: 'process id (default: the name of the file)' })
      .option('listen', { type: 'string', describe: 'HOST:PORT for other machines' })
      .option('keep', { type: 'boolean', default: false, describe: 'leave the state behind at the end' })
      .option('dev', {
        type: 'boolean',
        default: false,
        describe: 'find functions that keep views beyond their invocation',
      })
      .option('prewarm', { type: 'number', describe: 'process hosts kept waiting for new processes (0)' })
      .option('external', { type: 'string', array: true, describe: 'packages that are not bundled' })
      .example('$0 run app.ts', 'serve app.ts as process "app"')
      .example('$0 run app.ts -p grid --workers 4 --memory 8GiB', 'four workers on one state')
      .example('$0 run ./libfns.so --workers 8', 'native functions')
      .example('$0 run app.ts --native ./libfns.so', 'TypeScript and native functions that call each other')
      .example('$0 run app.ts --listen 0.0.0.0:7070', 'for clients on other machines, too'),
  handler: async (args) => {
    // Listened to from the start: an interrupt while the application starts has to clean up, too.
    const interrupts = new AbortController()
    const interrupt = (): void => {
      if (interrupts.signal.aborted) process.exit(exitCodes.interrupted)
      note('\nstopping; interrupt again to leave at once')
      interrupts.abort()
    }
    process.on('SIGINT', interrupt)
    process.on('SIGTERM', interrupt)
    const unread = lossOfStdout()
    {
      await using cluster = await startCluster(args)
      try {
        await serve(cluster, args, interrupts.signal, unread)
      } catch (error) {
        if (!interrupts.signal.aborted) throw error
      }
    }
    // What nobody takes from standard output would keep this alive.
    if (process.stdout.writableLength === 0) return
    const taken = new Promise((resolve) => process.stdout.write('', resolve))
    await Promise.race([taken, delay(lastWordsMs)])
    process.exit()
  },
}

async function startCluster(args: RunArguments): Promise<Cluster> {
  const { runtimeDir, listen, keep, dev, prewarm, external } = args
  // Every process and every log somebody follows takes descriptors; the soft limit is often 1,024.
  native().raiseOpenFiles()
  return Cluster.local({
    ...createFrom(args),
    keep,
    checkViews: dev || process.env['PRAAS_CHECK_VIEWS'] === '1',
    ...(runtimeDir === undefined ? {} : { runtimeDir }),
    ...(listen === undefined ? {} : { listen }),
    ...(prewarm === undefined ? {} : { prewarm }),
    ...(external === undefined ? {} : { external }),
  })
}

async function serve(cluster: Cluster, args: RunArguments, signal: AbortSignal, unread: AbortSignal): Promise<void> {
  // Node would otherwise end: nothing else of a cluster keeps it alive.
  const alive = setInterval(() => undefined, 2 ** 30)
  try {
    if (args.app === undefined && args.native === undefined) {
      announce(cluster, args, undefined, undefined)
      return await untilAborted(signal)
    }
    const deployed = await during('deploying', cluster.deploy(deployFrom(args)))
    const id = args.process ?? deployed.name
    const served = await during('starting workers', cluster.process(id, { app: deployed.name, signal }))
    served.close()
    announce(cluster, args, id, deployed)
    await Promise.all([printLog(cluster, id, AbortSignal.any([signal, unread])), untilAborted(signal)])
  } finally {
    clearInterval(alive)
  }
}

async function untilAborted(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, 'abort')
}

function deployFrom({ app, native, maxOutput, external }: RunArguments): DeployOptions {
  return {
    ...(app === undefined ? {} : { app }),
    ...(native === undefined ? {} : { native }),
    ...(maxOutput === undefined ? {} : { maxOutput }),
    ...(external === undefined ? {} : { external }),
  }
}

function announce(cluster: Cluster, args: RunArguments, id: string | undefined, app: AppDescription | undefined): void {
  if (args.json) {
    printJson({ url: cluster.url, listen: cluster.listenUrl, process: id, functions: app?.exports })
    return
  }
  const [example] = app?.exports ?? []
  const lines: [string, string | undefined][] = [
    ['process', id],
    ['functions', app?.exports.join(', ')],
    ['call it', id === undefined ? undefined : `praas invoke ${example ?? 'FUNCTION'} [DATA] -p ${id}`],
    ['create more', id === undefined ? 'praas create ID --app FILE' : undefined],
    [
      'from a program',
      `const cluster = await connect(${cluster.listenUrl === undefined ? '' : `'${cluster.listenUrl}'`})`,
    ],
    [
      'other machines',
      cluster.listenUrl === undefined
        ? undefined
        : `PRAAS_URL=${cluster.listenUrl} with PRAAS_TOKEN of \`praas token\`, or what ${join(cluster.runtimeDir ?? '', 'token')} says`,
    ],
    ['control', cluster.url],
  ]
  for (const [what, text] of lines) if (text !== undefined) note(`${what.padEnd(15)} ${text}`)
}
