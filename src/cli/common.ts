/** What commands have in common: options, connecting, choosing a process. */
import type { Argv } from 'yargs'
import type { Cluster } from '../client/cluster.js'
import { connect } from '../client/connect.js'
import type { Process } from '../client/process.js'
import { ArgumentError, ProcessError } from '../errors.js'
import { parseDuration } from '../units.js'

/** Options of every command. */
export interface CommonArguments {
  readonly url?: string | undefined
  readonly runtimeDir?: string | undefined
  readonly json: boolean
  readonly verbose: boolean
}

export function commonOptions(yargs: Argv): Argv<CommonArguments> {
  return yargs
    .option('url', {
      type: 'string',
      describe: 'control URL as `praas run` printed it (default: PRAAS_URL, else whatever runs on this machine)',
    })
    .option('runtime-dir', {
      type: 'string',
      describe: 'where clusters of this machine meet (default: PRAAS_RUNTIME_DIR)',
    })
    .option('json', { type: 'boolean', default: false, describe: 'print JSON' })
    .option('verbose', { type: 'boolean', default: false, describe: 'with stack traces' })
}

/** Options that choose how a process is made. */
export interface CreateArguments {
  readonly workers?: number | undefined
  readonly nativeWorkers?: number | undefined
  readonly workerMemory?: string | undefined
  readonly leaseWorkers?: number | undefined
  readonly concurrency?: number | undefined
  readonly memory?: string | undefined
  readonly hotMs?: number | undefined
  readonly defaultTimeout?: string | undefined
}

export function createOptions<Arguments>(yargs: Argv<Arguments>): Argv<Arguments & CreateArguments> {
  return yargs
    .option('workers', { type: 'number', describe: 'workers of the process (1)' })
    .option('native-workers', { type: 'number', describe: 'workers that run native functions (as many as --workers)' })
    .option('worker-memory', { type: 'string', describe: 'private memory of a native worker, such as 8GiB (4GiB)' })
    .option('lease-workers', { type: 'number', describe: 'most workers that leases may have at a time (64)' })
    .option('concurrency', { type: 'number', describe: 'async invocations one worker runs at a time (1)' })
    .option('memory', { type: 'string', describe: 'limit of the state, such as 512MiB (1GiB)' })
    .option('hot-ms', { type: 'number', describe: 'how long workers poll before they sleep: -1 always, 0 never (1)' })
    .option('default-timeout', { type: 'string', describe: 'deadline of calls that name none, such as 30s (60s)' })
}

export function createFrom(args: CreateArguments): {
  workers?: number
  nativeWorkers?: number
  workerMemory?: string
  leaseWorkers?: number
  concurrency?: number
  memory?: string
  hotMs?: number
  defaultTimeoutMs?: string
} {
  const { workers, nativeWorkers, workerMemory, leaseWorkers, concurrency, memory, hotMs, defaultTimeout } = args
  return {
    ...(workers === undefined ? {} : { workers }),
    ...(nativeWorkers === undefined ? {} : { nativeWorkers }),
    ...(workerMemory === undefined ? {} : { workerMemory }),
    ...(leaseWorkers === undefined ? {} : { leaseWorkers }),
    ...(concurrency === undefined ? {} : { concurrency }),
    ...(memory === undefined ? {} : { memory }),
    ...(hotMs === undefined ? {} : { hotMs }),
    ...(defaultTimeout === undefined ? {} : { defaultTimeoutMs: defaultTimeout }),
  }
}

/** Runs something with a cluster and closes it. */
export async function withCluster<Result>(
  args: CommonArguments,
  run: (cluster: Cluster) => Promise<Result>,
): Promise<Result> {
  const { runtimeDir } = args
  const cluster = await connect(args.url, runtimeDir === undefined ? {} : { runtimeDir })
  try {
    return await run(cluster)
  } finally {
    await cluster.close()
  }
}

/** Runs something with a process that is there: the named one, or the only one. */
export async function withProcess<Result>(
  args: CommonArguments & { readonly process?: string | undefined },
  run: (process: Process, cluster: Cluster) => Promise<Result>,
): Promise<Result> {
  return withCluster(args, async (cluster) => {
    const id = args.process ?? (await onlyProcess(cluster))
    return run(await cluster.process(id, { create: false }), cluster)
  })
}

async function onlyProcess(cluster: Cluster): Promise<string> {
  const [first, second] = await cluster.processes()
  if (first && !second) return first.id
  if (!first)
    throw new ProcessError('ERR_PROCESS_UNKNOWN', 'the cluster has no process; `praas create ID --app FILE` makes one')
  throw new ArgumentError('the cluster has several processes; choose one with --process ID (`praas ps` lists them)')
}

export function processOption<Arguments>(yargs: Argv<Arguments>): Argv<Arguments & { process: string | undefined }> {
  return yargs.option('process', {
    alias: 'p',
    type: 'string',
    describe: 'process id (default: the only one there is)',
  })
}

export function timeoutFrom(text: string | undefined): { timeoutMs?: number } {
  return text === undefined ? {} : { timeoutMs: parseDuration(text, '--timeout') }
}
