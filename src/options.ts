/** Options are checked where they enter: unknown names, wrong types and values out of bounds are errors that say so. */
import { z } from 'zod'
import { ArgumentError } from './errors.js'
import { isName, maxNameBytes, maxTimeoutMs } from './limits.js'
import { parseDuration, parseSize, type Duration, type Size } from './units.js'

/** A number of bytes, or text with a unit, within bounds. */
export function size(minimum: number, maximum: number): z.ZodType<number, Size> {
  return converted(parseSize, minimum, maximum, 'bytes')
}

/** A number of milliseconds, or text with a unit, within bounds. */
export function duration(minimum: number, maximum: number): z.ZodType<number, Duration> {
  return converted(parseDuration, minimum, maximum, 'milliseconds')
}

function converted(
  parse: (value: number | string, name: string) => number,
  minimum: number,
  maximum: number,
  unit: string,
): z.ZodType<number, number | string> {
  return z.union([z.number(), z.string()]).transform((value, context) => {
    try {
      const number = parse(value, 'it')
      if (number >= minimum && number <= maximum) return number
      context.addIssue({ code: 'custom', message: `expected ${minimum} … ${maximum} ${unit}` })
    } catch {
      context.addIssue({ code: 'custom', message: `expected ${unit} or text with a unit` })
    }
    return z.NEVER
  })
}

/** An integer within bounds. */
export function integer(minimum: number, maximum: number): z.ZodType<number, number> {
  return z.number().refine((value) => Number.isInteger(value) && value >= minimum && value <= maximum, {
    message: `expected an integer, ${minimum} … ${maximum}`,
  })
}

/** The name of a process, function or key: 1 … 255 bytes of UTF-8. */
export const name: z.ZodType<string, string> = z
  .string()
  .refine((value) => isName(value), { message: `expected 1 … ${maxNameBytes} bytes of UTF-8` })

export const timeout = duration(0, maxTimeoutMs)
export const abortSignal: z.ZodType<AbortSignal, AbortSignal> = z.instanceof(AbortSignal)

/**
 * Checks options against a schema and returns them with defaults filled in and units converted.
 *
 * @param where  Who takes the options, for the message: `connect`, `Cluster.local`, …
 * @throws {ArgumentError} naming the option, its bounds and the value received.
 */
export function parseOptions<Schema extends z.ZodObject>(
  schema: Schema,
  options: unknown,
  where: string,
): z.output<Schema> {
  const result = schema.strict().safeParse(options ?? {})
  if (result.success) return result.data as z.output<Schema>
  const [issue] = result.error.issues
  throw new ArgumentError(`${where}: ${issue ? explain(issue, options, Object.keys(schema.shape)) : 'invalid options'}`)
}

function explain(issue: z.core.$ZodIssue, options: unknown, known: readonly string[]): string {
  if (issue.code === 'unrecognized_keys') {
    const names = issue.keys.map((key) => JSON.stringify([...issue.path, key].map(String).join('.'))).join(', ')
    return `unknown option ${names}${issue.path.length === 0 ? `; known are ${known.join(', ')}` : ''}`
  }
  const path = issue.path.map(String).join('.')
  if (path === '') return `options: ${issue.message}, received ${show(options)}`
  return `option ${path}: ${issue.message}, received ${show(valueAt(options, issue.path))}`
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown> | undefined)?.[key], value)
}

function show(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value)
  if (typeof value === 'object' && value !== null) return `an object of ${value.constructor?.name ?? 'no class'}`
  return String(value)
}
