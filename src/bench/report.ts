/** Reports as tables, CSV and text. */
import { formatSize } from '../units.js'
import type { Machine } from './machine.js'
import { isMet, type Check, type Quantity, type Report, type Result } from './result.js'

/** Nanoseconds as people read them: three significant digits and a unit. */
export function formatNs(ns: number | null): string {
  if (ns === null) return ''
  if (ns < 0) return `-${formatNs(-ns)}`
  for (const [unit, size] of [
    ['s', 1e9],
    ['ms', 1e6],
    ['µs', 1e3],
  ] as const) {
    if (ns >= size) return `${significant(ns / size)} ${unit}`
  }
  return `${significant(ns)} ns`
}

/** Of a second. */
export function formatRate(perSecond: number | null): string {
  if (perSecond === null) return ''
  if (perSecond >= 1e6) return `${significant(perSecond / 1e6)} M/s`
  if (perSecond >= 1e3) return `${significant(perSecond / 1e3)} k/s`
  return `${significant(perSecond)} /s`
}

/** Of inputs that are carried one way only, when each takes so long. Over shared memory large ones are not moved. */
function formatBandwidth({ transport, function: name, bytes }: Result, ns: number | null): string {
  if (name !== 'discard' || transport === 'shm' || ns === null || ns === 0) return ''
  return `${significant((bytes * 1e9) / ns / 2 ** 20)} MiB/s`
}

function significant(value: number): string {
  return String(Number(value.toPrecision(3)))
}

type Cell = (result: Result) => string

const cells: readonly (readonly [string, Cell])[] = [
  ['TRANSPORT', ({ transport }) => transport ?? ''],
  ['PATH', ({ path }) => path ?? ''],
  ['MODE', ({ mode }) => mode ?? ''],
  ['KIND', ({ kind }) => kind ?? ''],
  ['FUNCTION', ({ function: name }) => name],
  ['CLIENT', ({ client }) => client],
  ['SIZE', ({ bytes }) => formatSize(bytes)],
  ['IN FLIGHT', ({ concurrency }) => String(concurrency)],
  ['IDLE CONNECTIONS', ({ idleConnections }) => String(idleConnections ?? '')],
  ['IDLE PROCESSES', ({ idleProcesses }) => String(idleProcesses ?? '')],
  ['IDLE FUNCTIONS', ({ idleFunctions }) => String(idleFunctions ?? '')],
  ['KEYS', ({ keys }) => String(keys ?? '')],
  ['P50', ({ p50Ns }) => formatNs(p50Ns)],
  ['P99', ({ p99Ns }) => formatNs(p99Ns)],
  ['P99.9', ({ p999Ns }) => formatNs(p999Ns)],
  ['MIN', ({ minNs }) => formatNs(minNs)],
  ['RATE', ({ opsPerSec }) => formatRate(opsPerSec)],
  ['BANDWIDTH', (result) => formatBandwidth(result, result.p50Ns)],
  ['FLOOR', ({ floor }) => floor ?? ''],
  ['FLOOR P50', ({ floorP50Ns }) => formatNs(floorP50Ns)],
  ['FLOOR RATE', ({ floorOpsPerSec }) => formatRate(floorOpsPerSec)],
  ['FLOOR BANDWIDTH', (result) => formatBandwidth(result, result.floorP50Ns)],
  ['MINUS FLOOR', ({ minusFloorNs }) => formatNs(minusFloorNs)],
  ['RATIO', ({ ratio }) => (ratio === null ? '' : ratio.toFixed(2))],
]

export interface TableText {
  readonly head: readonly string[]
  readonly rows: readonly (readonly string[])[]
}

/** What a column need not say, if it says nothing else. */
const usual: Readonly<Record<string, string>> = { 'IN FLIGHT': '1', PATH: 'host' }

/** A table of results, without the columns that say the same in every row. */
export function resultTable(results: readonly Result[]): TableText {
  const columns = cells
    .map(([head, cell]) => ({ head, texts: results.map(cell) }))
    .filter(({ head, texts }) => texts.some((text) => text !== '' && usual[head] !== text))
  return {
    head: columns.map(({ head }) => head),
    rows: results.map((_, row) => columns.map(({ texts }) => texts[row] ?? '')),
  }
}

export function quantityTable(quantities: readonly Quantity[]): TableText {
  return {
    head: ['QUANTITY', 'VALUE'],
    rows: quantities.map((quantity) => [quantity.name, formatQuantity(quantity)]),
  }
}

export function checkTable(checks: readonly Check[]): TableText {
  return {
    head: ['CHECK', 'VALUE', 'AT MOST', ''],
    rows: checks.map((check) => [
      ...[check.name, formatQuantity(check), formatQuantity({ ...check, value: check.most })],
      isMet(check) ? 'met' : 'NOT MET',
    ]),
  }
}

function formatQuantity({ value, unit }: Quantity): string {
  if (unit !== 'B') return `${significant(value)} ${unit}`.trimEnd()
  return value < 0 ? `-${formatSize(-value)}` : formatSize(value)
}

/** What has to be known to read the figures. */
export function notesOn({
  command,
  machine,
  versions,
  notes = [],
}: Omit<Report, 'results' | 'quantities' | 'checks'>): string[] {
  const where = `${machine.cpu}, ${machine.cores} cores, Linux ${machine.kernel}`
  const lines = [command, `${where}, Node ${versions.node}, praas ${versions.praas}, ${machine.date}`]
  if (!machine.coreEach) lines.push(sharedCores(machine))
  return [...lines, ...notes.map((note) => `Not measured: ${note}.`)]
}

function sharedCores({ cores, pinning }: Machine): string {
  const how = pinning ? `pinned to ${pinning.client}, ${pinning.host} and ${pinning.worker}` : `${cores} for three`
  return `Client, host and worker have no core each (${how}): what polls takes turns, and tails are those of the scheduler.`
}

const columns = [
  'suite',
  'transport',
  'path',
  'mode',
  'kind',
  'function',
  'call',
  'client',
  'bytes',
  'concurrency',
  'idleConnections',
  'idleProcesses',
  'idleFunctions',
  'keys',
  'samples',
  'p50Ns',
  'p99Ns',
  'p999Ns',
  'minNs',
  'opsPerSec',
  'floor',
  'floorP50Ns',
  'floorOpsPerSec',
  'minusFloorNs',
  'ratio',
] as const satisfies readonly (keyof Result)[]

/** One line per result, RFC 4180. */
export function toCsv(results: readonly Result[]): string {
  const lines = results.map((result) => columns.map((column) => csvField(result[column])).join(','))
  return [columns.join(','), ...lines, ''].join('\r\n')
}

function csvField(value: string | number | null | undefined): string {
  const text = String(value ?? '')
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text
}
