/** `praas bench`: what calls, state and starts cost on this machine, beside what the machine itself costs. */
import { accessSync, constants, existsSync, statSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { Argv, CommandModule } from 'yargs'
import type { SuiteChoice } from '../bench/options.js'
import type { Report } from '../bench/result.js'
import { ArgumentError, messageOf } from '../errors.js'
import { exitCodes } from './exit_codes.js'
import { note, printTable, stepsBar } from './output.js'

interface OutputArguments {
  readonly json?: string | undefined
  readonly csv?: string | undefined
  readonly plot?: readonly string[] | undefined
}

export const bench: CommandModule = {
  command: 'bench <suite>',
  describe: 'measure this machine: calls, state, starts, throughput',
  builder: (yargs) =>
    yargs
      .command(suite('invoke', 'round trips of one call at a time', (y) => nestedOptions(callOptions(y))))
      .command(suite('state', 'operations of the state inside a function', stateOptions))
      .command(suite('cold', 'from nothing to the first result; idle processes', coldOptions))
      .command(suite('throughput', 'calls per second with many in flight', (y) => throughputOptions(callOptions(y))))
      .command(suite('lease', 'whether leases end on time and leave nothing', leaseOptions))
      .demandCommand(1, 'name a suite: invoke, state, cold, throughput or lease')
      .example('$0 bench invoke --transport shm --mode hot --sizes 64,4KiB', 'a part of the table')
      .example('$0 bench throughput --json out.json --plot out.html', 'for scripts, and to look at'),
  handler: () => undefined,
}

function suite(name: SuiteChoice['suite'], describe: string, options: (yargs: Argv) => Argv): CommandModule {
  return {
    command: name,
    describe,
    builder: (yargs) => outputOptions(options(yargs)),
    handler: (args) => run({ suite: name, args } as never, args as OutputArguments),
  }
}

async function run(choice: SuiteChoice, output: OutputArguments): Promise<void> {
  // Loaded here: other commands need none of it.
  const [{ chosenSuite }, { reportOf }, { checkPlotLibrary, checkPlotName }] = await Promise.all([
    import('../bench/options.js'),
    import('../bench/bench.js'),
    import('../bench/plot.js'),
  ])
  for (const path of output.plot ?? []) checkPlotName(path)
  checkWritable(output)
  if (output.plot) await checkPlotLibrary()
  const suite = chosenSuite(choice)
  // The cluster ends with the program, which has to end by itself for that.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.once(signal, () => process.exit(exitCodes.interrupted))
  const bar = stepsBar()
  let report: Report
  try {
    report = await reportOf(commandLine(), suite, bar)
  } finally {
    bar.end()
  }
  await print(report, output)
  const { isMet } = await import('../bench/result.js')
  if (report.checks?.every(isMet) === false) process.exitCode = exitCodes.failed
}

/** Before anything is measured, because minutes of measuring would be lost. */
function checkWritable({ json, csv, plot = [] }: OutputArguments): void {
  for (const path of [json, csv, ...plot]) {
    if (path === undefined) continue
    try {
      accessSync(existsSync(path) ? path : dirname(path), constants.W_OK)
      if (statSync(path, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a folder')
    } catch (error) {
      throw new ArgumentError(`cannot write to ${path}: ${messageOf(error)}`)
    }
  }
}

/** As it would be typed again. */
function commandLine(): string {
  const quoted = process.argv
    .slice(2)
    .map((arg) => (/^[\w,./=:-]+$/.test(arg) ? arg : `'${arg.replaceAll("'", "'\\''")}'`))
  return ['praas', ...quoted].join(' ')
}

async function print(report: Report, { json, csv, plot = [] }: OutputArguments): Promise<void> {
  const { checkTable, notesOn, quantityTable, resultTable, toCsv } = await import('../bench/report.js')
  for (const line of notesOn(report)) note(line)
  const { results, quantities, checks = [] } = report
  for (const { head, rows } of [resultTable(results), quantityTable(quantities), checkTable(checks)]) {
    if (rows.length > 0) printTable(head, rows)
  }
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, null, 2)}\n`)
  if (csv !== undefined) writeFileSync(csv, toCsv(report.results))
  const { writePlot } = await import('../bench/plot.js')
  for (const path of plot) await writePlot(path, report)
}

function outputOptions(yargs: Argv): Argv {
  return yargs
    .option('json', { type: 'string', requiresArg: true, describe: 'write machine, versions and results to a file' })
    .option('csv', { type: 'string', requiresArg: true, describe: 'write the results to a file' })
    .option('plot', {
      type: 'string',
      array: true,
      nargs: 1,
      describe: 'draw to a file, .html or .svg; may be repeated. Needs the package echarts',
    })
}

function repetitionOptions(yargs: Argv, samples: number, rounds: number): Argv {
  return yargs
    .option('samples', { type: 'number', default: samples, describe: 'recorded operations; fewer of large payloads' })
    .option('rounds', { type: 'number', default: rounds, describe: 'turns that subjects and floor take' })
}

function callOptions(yargs: Argv): Argv {
  return repetitionOptions(yargs, 10_000, 5)
    .option('transport', { type: 'string', default: 'shm,tcp', describe: 'some of shm, tcp, verbs' })
    .option('path', { type: 'string', default: 'host', describe: 'how calls get to workers, some of host, lease' })
    .option('mode', { type: 'string', default: 'hot,warm', describe: 'hot: all poll; warm: all sleep between calls' })
    .option('kind', { type: 'string', default: 'ts,native', describe: 'language of the functions, some of ts, native' })
    .option('sizes', { type: 'string', default: '64,4KiB,64KiB,1MiB,16MiB', describe: 'bytes of input and result' })
    .option('pin', pinOption)
}

const pinOption = { type: 'string', describe: 'cores: CLIENT,WORKER or CLIENT,WORKER,HOST' } as const

function nestedOptions(yargs: Argv): Argv {
  return yargs
    .option('call', { type: 'string', default: 'sync,async', describe: 'blocking or awaited, some of sync, async' })
    .option('client', {
      type: 'string',
      describe: 'some of native, invokeSync (sync) and "await invoke" (async); default: all',
    })
    .option('function', {
      type: 'string',
      default: 'null,touch',
      describe: 'null: bytes stay as they are; touch: are used; discard: go one way only',
    })
    .option('nested', { type: 'boolean', default: false, describe: 'also from function to function' })
    .option('connections', { type: 'string', default: '0', describe: 'idle connections beside, such as 1,10,1000' })
    .option('processes', { type: 'string', default: '0', describe: 'idle processes beside' })
    .option('functions', { type: 'string', default: '0', describe: 'idle functions beside, at most 1020' })
}

function throughputOptions(yargs: Argv): Argv {
  return yargs
    .default('mode', 'warm')
    .default('sizes', '64')
    .default('samples', 100_000)
    .option('concurrency', { type: 'string', default: '64', describe: 'calls in flight' })
    .option('client', {
      type: 'string',
      describe: 'some of native, "await invoke", invokeMany; default: await invoke,invokeMany',
    })
}

function stateOptions(yargs: Argv): Argv {
  return repetitionOptions(yargs, 10_000, 5)
    .option('sizes', { type: 'string', default: '64,4KiB,64KiB,1MiB,16MiB', describe: 'bytes of a value' })
    .option('keys', { type: 'string', default: '1,100,10000', describe: 'keys in the state' })
    .option('pin', pinOption)
}

function coldOptions(yargs: Argv): Argv {
  return repetitionOptions(yargs, 20, 5)
    .option('kind', { type: 'string', default: 'ts,native', describe: 'language of the functions, some of ts, native' })
    .option('processes', {
      type: 'string',
      default: '50',
      describe: 'idle processes whose memory and CPU time is measured, such as 1,50',
    })
    .option('seconds', { type: 'number', default: 10, describe: 'for which their CPU time is measured' })
    .option('workers', { type: 'number', default: 1_000, describe: 'native workers of one process; 0: not measured' })
    .option('path', {
      type: 'string',
      default: 'host',
      describe: 'host: all of that; lease: the first call of leased workers, phase by phase',
    })
    .option('transport', { type: 'string', default: 'shm,tcp', describe: 'to leased workers, some of shm, tcp, verbs' })
}

function leaseOptions(yargs: Argv): Argv {
  return yargs
    .option('kind', { type: 'string', default: 'ts,native', describe: 'language of the functions, some of ts, native' })
    .option('transport', { type: 'string', default: 'shm,tcp', describe: 'some of shm, tcp, verbs' })
    .option('samples', { type: 'number', default: 10, describe: 'leases that expire while their worker never returns' })
    .option('ttl', { type: 'number', default: 300, describe: 'after so many milliseconds' })
    .option('leases', {
      type: 'number',
      default: 1_000,
      describe: 'leases taken, used and ended one after the other; 0: not measured',
    })
}
