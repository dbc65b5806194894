import { parseArgs } from 'node:util'
import { parseIntegers, parseSizes, parseWords } from '../../src/bench/lists.js'
import { parsePinning, type Pinning } from '../../src/bench/pinning.js'
import { ArgumentError } from '../../src/errors.js'

export interface Options {
  /** Undefined: all. */
  readonly peers: readonly string[] | undefined
  /** Of praas, which modes and calls; undefined: all. */
  readonly subjects: readonly string[] | undefined
  /** Bytes. */
  readonly sizes: readonly number[]
  /** Operations per peer and size up to 256 KiB; fewer above. */
  readonly samples: number
  /** Operations at a time. */
  readonly inFlight: number
  /** In how many turns the samples are taken. */
  readonly rounds: number
  /** Without it the scheduler places everything. */
  readonly pin: Pinning | undefined
  readonly json: string | undefined
  readonly list: boolean
}

/** @throws {ArgumentError} naming the option, what it takes and what was received */
export function parseOptions(
  args: readonly string[],
  known: Readonly<Record<'peers' | 'subjects', readonly string[]>>,
): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      peers: { type: 'string' },
      subjects: { type: 'string' },
      sizes: { type: 'string', default: '64,4KiB,64KiB,1MiB,16MiB' },
      samples: { type: 'string', default: '2000' },
      'in-flight': { type: 'string', default: '1' },
      rounds: { type: 'string', default: '10' },
      pin: { type: 'string' },
      json: { type: 'string' },
      list: { type: 'boolean', default: false },
    },
  })
  return {
    peers: values.peers === undefined ? undefined : parseWords('--peers', values.peers, known.peers),
    subjects: values.subjects === undefined ? undefined : parseWords('--subjects', values.subjects, known.subjects),
    sizes: parseSizes('--sizes', values.sizes, 1, 64 * 2 ** 20),
    samples: one('--samples', values.samples, 10_000_000),
    // As many as a floor has.
    inFlight: one('--in-flight', values['in-flight'], 1_024),
    rounds: one('--rounds', values.rounds, 10_000),
    pin: values.pin === undefined ? undefined : parsePinning(values.pin),
    json: values.json,
    list: values.list,
  }
}

function one(option: string, text: string, maximum: number): number {
  const [value, ...more] = parseIntegers(option, text, 1, maximum)
  if (value !== undefined && more.length === 0) return value
  throw new ArgumentError(`${option}: expected one integer, received ${JSON.stringify(text)}`)
}
