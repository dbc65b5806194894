/** What the command line says, checked and made the options of a suite. */
import { ArgumentError } from '../errors.js'
import { maxIdleFunctions } from './idle_functions.js'
import { noLoad, type IdleLoad } from './idle_load.js'
import { checked, parseIntegers, parseSizes, parseWords } from './lists.js'
import { parsePinning, type Pinning } from './pinning.js'
import type { Progress } from './progress.js'
import type { Repetitions } from './repetitions.js'
import type { Call, Kind, Measured, Mode, Path, Transport } from './result.js'
import { callOf, clients } from './subjects.js'
import { coldSuite, type ColdOptions } from './suites/cold.js'
import { invokeSuite, type InvokeOptions } from './suites/invoke.js'
import { leaseSuite, type LeaseOptions } from './suites/lease.js'
import { stateSuite, type StateOptions } from './suites/state.js'
import { throughputSuite, type ThroughputOptions } from './suites/throughput.js'

export interface RepetitionArguments {
  readonly samples: number
  readonly rounds: number
}

export interface CallArguments extends RepetitionArguments {
  readonly transport: string
  readonly path: string
  readonly mode: string
  readonly kind: string
  readonly client?: string | undefined
  readonly sizes: string
  readonly pin?: string | undefined
}

export interface InvokeArguments extends CallArguments {
  readonly call: string
  readonly function: string
  readonly nested: boolean
  readonly connections: string
  readonly processes: string
  readonly functions: string
}

export interface ThroughputArguments extends CallArguments {
  readonly concurrency: string
}

export interface StateArguments extends RepetitionArguments {
  readonly sizes: string
  readonly keys: string
  readonly pin?: string | undefined
}

export interface ColdArguments extends RepetitionArguments {
  readonly kind: string
  readonly processes: string
  readonly seconds: number
  readonly workers: number
  readonly path: string
  readonly transport: string
}

export interface LeaseArguments {
  readonly kind: string
  readonly transport: string
  readonly samples: number
  readonly ttl: number
  readonly leases: number
}

/** A suite with its part of the command line. */
export type SuiteChoice =
  | { readonly suite: 'invoke'; readonly args: InvokeArguments }
  | { readonly suite: 'state'; readonly args: StateArguments }
  | { readonly suite: 'cold'; readonly args: ColdArguments }
  | { readonly suite: 'throughput'; readonly args: ThroughputArguments }
  | { readonly suite: 'lease'; readonly args: LeaseArguments }

/** A suite that is ready to run. */
export interface ChosenSuite {
  readonly run: (progress: Progress) => Promise<Measured>
  readonly pinning?: Pinning | undefined
}

/** @throws {ArgumentError} naming the option, what it takes, and what it was given */
export function chosenSuite(choice: SuiteChoice): ChosenSuite {
  switch (choice.suite) {
    case 'invoke': {
      const options = invokeOptions(choice.args)
      return { run: (progress) => invokeSuite(options, progress), pinning: options.pinning }
    }
    case 'state': {
      const options = stateOptions(choice.args)
      return { run: (progress) => stateSuite(options, progress), pinning: options.pinning }
    }
    case 'cold': {
      const options = coldOptions(choice.args)
      return { run: (progress) => coldSuite(options, progress) }
    }
    case 'throughput': {
      const options = throughputOptions(choice.args)
      return { run: (progress) => throughputSuite(options, progress), pinning: options.pinning }
    }
    case 'lease': {
      const options = leaseOptions(choice.args)
      return { run: (progress) => leaseSuite(options, progress) }
    }
  }
}

const transports: readonly Transport[] = ['shm', 'tcp', 'verbs']
const paths: readonly Path[] = ['host', 'lease']
const modes: readonly Mode[] = ['hot', 'warm']
const kinds: readonly Kind[] = ['ts', 'native']
const calls: readonly Call[] = ['sync', 'async']
/** Of one payload in one piece: the default `maxContiguous` of a process. */
const largestBytes = 64 * 2 ** 20

export function invokeOptions(args: InvokeArguments): InvokeOptions {
  const chosenCalls = parseWords('--call', args.call, calls)
  const known = clients.filter((client) => client !== 'invokeMany')
  const wanted = args.client === undefined ? known : parseWords('--client', args.client, known)
  return {
    ...callOptions(args),
    clients: someOf(
      '--client',
      wanted.filter((client) => chosenCalls.includes(callOf(client))),
    ),
    functions: parseWords('--function', args.function, ['null', 'touch', 'discard'] as const),
    nested: args.nested,
    loads: loadsOf(args),
  }
}

/** Each number of connections with each of processes and each of functions. */
function loadsOf(args: InvokeArguments): IdleLoad[] {
  const connections = parseIntegers('--connections', args.connections, 0, 100_000)
  const processes = parseIntegers('--processes', args.processes, 0, 1_000)
  const functions = parseIntegers('--functions', args.functions, 0, maxIdleFunctions)
  const loads = connections.map((count) => ({ ...noLoad, connections: count }))
  return loads
    .flatMap((load) => processes.map((count) => ({ ...load, processes: count })))
    .flatMap((load) => functions.map((count) => ({ ...load, functions: count })))
}

export function throughputOptions(args: ThroughputArguments): ThroughputOptions {
  const known = clients.filter((client) => client !== 'invokeSync')
  const concurrency = parseIntegers('--concurrency', args.concurrency, 1, 1_024)
  const wanted = parseWords('--client', args.client ?? 'await invoke,invokeMany', known)
  return { ...callOptions(args), clients: wanted, concurrency }
}

export function stateOptions(args: StateArguments): StateOptions {
  const sizes = parseSizes('--sizes', args.sizes, 8, 2 ** 30)
  for (const size of sizes) {
    if (size % 8 !== 0) throw new ArgumentError(`--sizes: expected multiples of 8 bytes, received ${size}`)
  }
  const keys = parseIntegers('--keys', args.keys, 1, 1_000_000)
  return { ...repetitions(args), sizes, keys, pinning: pinningOf(args), elementSeconds: 0.2 }
}

export function coldOptions(args: ColdArguments): ColdOptions {
  return {
    ...repetitions(args),
    kinds: parseWords('--kind', args.kind, kinds),
    processes: parseIntegers('--processes', args.processes, 0, 1_000).filter((count) => count > 0),
    seconds: checked('--seconds', args.seconds, 1, 3_600),
    workers: checked('--workers', args.workers, 0, 1_000),
    paths: parseWords('--path', args.path, paths),
    transports: parseWords('--transport', args.transport, transports),
  }
}

export function leaseOptions(args: LeaseArguments): LeaseOptions {
  return {
    kinds: parseWords('--kind', args.kind, kinds),
    transports: parseWords('--transport', args.transport, transports),
    samples: checked('--samples', args.samples, 1, 100_000),
    ttlMs: checked('--ttl', args.ttl, 50, 3_600_000),
    leases: checked('--leases', args.leases, 0, 1_000_000),
  }
}

interface CallOptions extends Repetitions {
  readonly transports: readonly Transport[]
  readonly paths: readonly Path[]
  readonly modes: readonly Mode[]
  readonly kinds: readonly Kind[]
  readonly sizes: readonly number[]
  readonly pinning: Pinning | undefined
}

function callOptions(args: CallArguments): CallOptions {
  return {
    ...repetitions(args),
    transports: parseWords('--transport', args.transport, transports),
    paths: parseWords('--path', args.path, paths),
    modes: parseWords('--mode', args.mode, modes),
    kinds: parseWords('--kind', args.kind, kinds),
    sizes: parseSizes('--sizes', args.sizes, 1, largestBytes),
    pinning: pinningOf(args),
  }
}

function pinningOf({ pin }: { readonly pin?: string | undefined }): Pinning | undefined {
  return pin === undefined ? undefined : parsePinning(pin)
}

function repetitions({ samples, rounds }: RepetitionArguments): Repetitions {
  return { samples: checked('--samples', samples, 1, 10_000_000), rounds: checked('--rounds', rounds, 1, 10_000) }
}

function someOf<Item>(option: string, items: readonly Item[]): readonly Item[] {
  if (items.length > 0) return items
  throw new ArgumentError(`${option}: none of them makes the calls that --call names`)
}
