#!/usr/bin/env node
/** The `praas` command. */
import yargs from 'yargs'
import { hideBin } from 'yargs/helpers'
import { packageVersion } from '../package.js'
import { bench } from './bench.js'
import { clean } from './clean.js'
import { doctor } from './doctor.js'
import { exitCodeHelp, exitCodeOf, exitCodes } from './exit_codes.js'
import { inspect } from './inspect.js'
import { invoke } from './invoke.js'
import { leases } from './leases.js'
import { logs } from './logs.js'
import { note, printError } from './output.js'
import { create, ps, rm, stop } from './processes.js'
import { run } from './run.js'
import { state } from './state.js'
import { token } from './token.js'

const args = hideBin(process.argv)
const parser = yargs(args)
  .scriptName('praas')
  .usage('$0 COMMAND\n\nStateful processes for functions, on this machine or another.')
  .command(run as never)
  .command(invoke as never)
  .command(create as never)
  .command(ps as never)
  .command(stop as never)
  .command(rm as never)
  .command(state)
  .command(leases as never)
  .command(token as never)
  .command(logs as never)
  .command(inspect as never)
  .command(doctor as never)
  .command(clean as never)
  .command(bench)
  .completion('completion', 'print a completion script for bash or zsh')
  .demandCommand(1, 'name a command')
  .strict()
  .recommendCommands()
  .version(packageVersion())
  .alias('help', 'h')
  .wrap(Math.min(110, process.stdout.columns ?? 110))
  .epilogue(exitCodeHelp)
  .exitProcess(false)
  .fail((message: string | null, error: Error | undefined) => {
    if (error) throw error
    note(`praas: ${message ?? 'wrong usage'}\nSee praas --help.`)
    process.exitCode = exitCodes.usage
    throw new UsageError()
  })

/** Has been explained already. */
class UsageError extends Error {}

// A reader that has seen enough (`praas ps | head -1`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(exitCodes.ok)
  throw error
})

// Nor is there anybody to tell that nobody reads this.
process.stderr.on('error', () => undefined)

try {
  await parser.parseAsync()
} catch (error) {
  if (!(error instanceof UsageError)) {
    // Where it takes a file, it says nothing about errors.
    printError(error, { json: args.includes('--json') && args[0] !== 'bench', verbose: args.includes('--verbose') })
    process.exitCode = exitCodeOf(error)
  }
}
