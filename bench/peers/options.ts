import { parseArgs } from 'node:util'
import type { Pinning } from './pinning.js'

export interface Options {
  /** Undefined: all. */
  readonly peers: readonly string[] | undefined
  /** Of praas, which modes and calls; undefined: all. */
  readonly subjects: readonly string[] | undefined
  /** Bytes. */
  readonly sizes: readonly number[]
  /** Operations per peer and size up to 64 KiB; fewer above. */
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

/** @throws Error that names the option, its bounds and what was received */
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
    peers: names('--peers', values.peers, known.peers),
    subjects: names('--subjects', values.subjects, known.subjects),
    sizes: values.sizes.split(',').map(parseSize),
    samples: integer('--samples', values.samples, 1, 10_000_000),
    inFlight: integer('--in-flight', values['in-flight'], 1, 65_536),
    rounds: integer('--rounds', values.rounds, 1, 10_000),
    pin: values.pin === undefined ? undefined : parsePinning(values.pin),
    json: values.json,
    list: values.list,
  }
}

function names(option: string, text: string | undefined, known: readonly string[]): readonly string[] | undefined {
  const chosen = text?.split(',')
  const unknown = chosen?.filter((name) => !known.includes(name)) ?? []
  if (unknown.length === 0) return chosen
  throw new Error(`${option}: expected some of ${known.join(', ')}, received ${unknown.join(', ')}`)
}

function parsePinning(text: string): Pinning {
  const [, client, server] = /^(\d{1,4}),(\d{1,4})$/.exec(text) ?? []
  if (client !== undefined && server !== undefined) return { client: Number(client), server: Number(server) }
  throw new Error(`--pin: expected two cores such as 0,1, received ${JSON.stringify(text)}`)
}

function parseSize(text: string): number {
  const match = /^(\d+)\s*(B|KiB|MiB)?$/.exec(text.trim())
  if (!match) throw new Error(`--sizes: expected sizes such as 64, 4KiB or 1MiB, received ${JSON.stringify(text)}`)
  const bytes = Number(match[1]) * { B: 1, KiB: 2 ** 10, MiB: 2 ** 20 }[(match[2] ?? 'B') as 'B' | 'KiB' | 'MiB']
  return integer('--sizes', String(bytes), 1, 2 ** 28)
}

function integer(option: string, text: string, min: number, max: number): number {
  const value = Number(text)
  if (/^\d+$/.test(text) && value >= min && value <= max) return value
  throw new Error(`${option}: expected an integer, ${min} … ${max}, received ${JSON.stringify(text)}`)
}
