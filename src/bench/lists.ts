/** Lists as the command line takes them: `64,4KiB`. */
import { ArgumentError } from '../errors.js'
import { parseSize } from '../units.js'

/** Some of the known words, in the order given, each once. */
export function parseWords<Word extends string>(option: string, text: string, known: readonly Word[]): Word[] {
  const words = partsOf(option, text)
  for (const word of words) {
    if (known.includes(word as Word)) continue
    throw new ArgumentError(`${option}: expected some of ${known.join(', ')}, received ${JSON.stringify(word)}`)
  }
  return words as Word[]
}

/** Bytes of each, `minimum` … `maximum`. */
export function parseSizes(option: string, text: string, minimum: number, maximum: number): number[] {
  return partsOf(option, text).map((part) => checked(option, parseSize(part, option), minimum, maximum))
}

/** Integers, `minimum` … `maximum`. */
export function parseIntegers(option: string, text: string, minimum: number, maximum: number): number[] {
  return partsOf(option, text).map((part) => checked(option, Number(part), minimum, maximum))
}

export function checked(option: string, value: number, minimum: number, maximum: number): number {
  if (Number.isInteger(value) && value >= minimum && value <= maximum) return value
  throw new ArgumentError(`${option}: expected an integer, ${minimum} … ${maximum}, received ${value}`)
}

function partsOf(option: string, text: string): string[] {
  const parts = text.split(',').map((part) => part.trim())
  if (parts.includes(''))
    throw new ArgumentError(`${option}: expected a list such as a,b; received ${JSON.stringify(text)}`)
  return [...new Set(parts)]
}
