/** Sizes and durations as people write them. */
import { ArgumentError } from './errors.js'

const sizeUnits: Readonly<Record<string, number>> = {
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
}

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1_000, min: 60_000, h: 3_600_000, d: 86_400_000 }

/** A number of bytes, or text such as `'512 MiB'` or `'1.5GB'`. */
export type Size = number | string
/** A number of milliseconds, or text such as `'250 ms'`, `'5s'` or `'2 h'`. */
export type Duration = number | string

/** Bytes of a size. `name` is the option it came from, for the message. */
export function parseSize(value: Size, name: string): number {
  const bytes = typeof value === 'number' ? value : parse(value, sizeUnits)
  if (bytes === undefined || !Number.isSafeInteger(Math.round(bytes)) || bytes < 0) {
    throw new ArgumentError(`${name} is ${JSON.stringify(value)}; expected bytes or text such as "64 MiB" or "1.5 GB"`)
  }
  return Math.round(bytes)
}

/** Milliseconds of a duration. */
export function parseDuration(value: Duration, name: string): number {
  const milliseconds = typeof value === 'number' ? value : parse(value, durationUnits)
  if (milliseconds === undefined || !Number.isFinite(milliseconds)) {
    throw new ArgumentError(
      `${name} is ${JSON.stringify(value)}; expected milliseconds or text such as "250 ms" or "5 s"`,
    )
  }
  return milliseconds
}

/** `1536` → `1.5 KiB`. */
export function formatSize(bytes: number): string {
  for (const unit of ['TiB', 'GiB', 'MiB', 'KiB'] as const) {
    const size = sizeUnits[unit] ?? 1
    if (bytes >= size) return `${trimmed(bytes / size)} ${unit}`
  }
  return `${bytes} B`
}

/** `90000` → `1.5 min`. */
export function formatDuration(milliseconds: number): string {
  for (const unit of ['d', 'h', 'min', 's'] as const) {
    const size = durationUnits[unit] ?? 1
    if (milliseconds >= size) return `${trimmed(milliseconds / size)} ${unit}`
  }
  return `${trimmed(milliseconds)} ms`
}

function parse(text: string, units: Readonly<Record<string, number>>): number | undefined {
  const match = /^\s*(-?\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*$/.exec(text)
  if (!match) return undefined
  const [, digits = '', unit = ''] = match
  if (unit === '') return Number(digits)
  const name = Object.keys(units).find((known) => known.toLowerCase() === unit.toLowerCase())
  return name === undefined ? undefined : Number(digits) * (units[name] ?? 1)
}

function trimmed(value: number): string {
  return value.toFixed(value < 10 ? 2 : 1).replace(/\.?0+$/, '')
}
