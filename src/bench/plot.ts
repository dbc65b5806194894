/**
 * Plots of results: a page that works without a network, or SVG. Drawn by ECharts, which is loaded only here; it is large,
 * so it is installed by those who want plots.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { extname } from 'node:path'
import type { EChartsOption, SeriesOption } from 'echarts'
import { ArgumentError, codeOf, PraasError } from '../errors.js'
import { formatSize } from '../units.js'
import { notesOn } from './report.js'
import type { Report, Result } from './result.js'

const size = { width: 1_100, height: 560 } as const

/** @throws {ArgumentError} unless the name ends in .html or .svg */
export function checkPlotName(path: string): void {
  if (['.html', '.svg'].includes(extname(path))) return
  throw new ArgumentError(`--plot: expected a file name that ends in .html or .svg, received ${JSON.stringify(path)}`)
}

/** @throws {PraasError} `ERR_UNSUPPORTED` when ECharts is not installed */
export async function checkPlotLibrary(): Promise<void> {
  await loadLibrary()
}

/** Writes the plots of a report. An SVG file has them below each other. */
export async function writePlot(path: string, report: Report): Promise<void> {
  checkPlotName(path)
  const library = await loadLibrary()
  const charts = chartsOf(report.results)
  if (extname(path) === '.svg') {
    writeFileSync(path, stacked(charts.map((option) => render(library, option))))
    return
  }
  const script = readFileSync(createRequire(import.meta.url).resolve('echarts/dist/echarts.min.js'), 'utf8')
  writeFileSync(path, page(script, charts, report))
}

type Library = typeof import('echarts')

async function loadLibrary(): Promise<Library> {
  try {
    return await import('echarts')
  } catch (error) {
    if (codeOf(error) !== 'ERR_MODULE_NOT_FOUND') throw error
    throw new PraasError('ERR_UNSUPPORTED', '--plot draws with the package echarts: npm install echarts', {
      cause: error,
    })
  }
}

function render(library: Library, option: EChartsOption): string {
  const chart = library.init(null, null, { renderer: 'svg', ssr: true, ...size })
  try {
    chart.setOption(option)
    return chart.renderToSVGString()
  } finally {
    chart.dispose()
  }
}

function stacked(charts: readonly string[]): string {
  const placed = charts.map((svg, index) => svg.replace('<svg ', `<svg y="${index * size.height}" `))
  const height = Math.max(1, charts.length) * size.height
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${size.width}" height="${height}">${placed.join('\n')}</svg>\n`
}

function page(script: string, charts: readonly EChartsOption[], report: Report): string {
  // `<` would end the script element wherever it stands in a text.
  const data = JSON.stringify(charts).replaceAll('<', '\\u003c')
  const notes = notesOn(report).map((note) => `<p>${escaped(note)}</p>`)
  const frames = charts.map((_, index) => `<div id="chart-${index}" style="height: ${size.height}px"></div>`)
  return `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>praas bench</title>
<body style="font: 14px sans-serif; max-width: ${size.width}px; margin: auto">
${notes.join('\n')}
${frames.join('\n')}
<script>${script}</script>
<script>
for (const [index, option] of ${data}.entries()) {
  const chart = echarts.init(document.getElementById('chart-' + index), null, { renderer: 'svg' })
  chart.setOption(option)
  addEventListener('resize', () => chart.resize())
}
</script>
</html>
`
}

function escaped(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
}

/** One chart per suite, transport, mode and function: time by size, subjects and floors; rates by calls in flight. */
export function chartsOf(results: readonly Result[]): EChartsOption[] {
  const groups = grouped(results, ({ suite, transport, mode, function: name }) =>
    [suite, transport, mode, suite === 'state' ? null : name].filter((part) => part !== null).join(' · '),
  )
  return [...groups].map(([title, group]) => chartOf(title, group))
}

function chartOf(title: string, results: readonly Result[]): EChartsOption {
  const rates = results.some(({ suite }) => suite === 'throughput')
  const categories = [...new Set(results.map(categoryOf))]
  const value = ({ p50Ns, opsPerSec }: Pick<Result, 'p50Ns' | 'opsPerSec'>): number => (rates ? opsPerSec : p50Ns / 1e3)
  const floor = ({ floorP50Ns, floorOpsPerSec }: Result): number | null =>
    rates ? floorOpsPerSec : floorP50Ns === null ? null : floorP50Ns / 1e3
  const lines = grouped(results, lineOf)
  const series: SeriesOption[] = [...lines].map(([name, points]) =>
    line(name, categories, points, (point) => value(point)),
  )
  const floors = grouped(
    results.filter((result) => result.floor !== null),
    (result) => `floor: ${(result.floor ?? '').replaceAll(/\(.*?\)/g, '')}`,
  )
  for (const [name, points] of floors) {
    series.push({ ...line(name, categories, points, floor), lineStyle: { type: 'dashed' } })
  }
  return {
    animation: false,
    title: { text: title, left: 'center' },
    tooltip: { trigger: 'axis' },
    legend: { bottom: 0, type: 'scroll' },
    grid: { left: 90, right: 40, top: 60, bottom: 80 },
    xAxis: { type: 'category', data: categories },
    yAxis: { type: 'log', name: rates ? 'per second' : 'p50, µs', minorSplitLine: { show: true } },
    series,
  }
}

function line(
  name: string,
  categories: readonly string[],
  points: readonly Result[],
  value: (point: Result) => number | null,
): SeriesOption & { type: 'line' } {
  const byCategory = new Map(points.map((point) => [categoryOf(point), value(point)]))
  return {
    type: 'line',
    name,
    data: categories.map((category) => byCategory.get(category) ?? null),
    connectNulls: true,
  }
}

function categoryOf({ bytes, concurrency }: Result): string {
  return concurrency === 1 ? formatSize(bytes) : `${formatSize(bytes)}, ${concurrency} in flight`
}

function lineOf(result: Result): string {
  const { suite, kind, client, function: name, keys, idleConnections, idleProcesses, idleFunctions } = result
  const beside = [
    [keys, 'keys'],
    [idleConnections, 'connections'],
    [idleProcesses, 'processes'],
    [idleFunctions, 'functions'],
  ].flatMap(([count, what]) => (count === undefined ? [] : [`${count} ${what}`]))
  const what = suite === 'state' ? [name] : [kind, client].filter((part) => part !== null)
  return [what.join(' '), ...beside].join(', ')
}

function grouped<Item>(items: readonly Item[], keyOf: (item: Item) => string): Map<string, Item[]> {
  const groups = new Map<string, Item[]>()
  for (const item of items) {
    const key = keyOf(item)
    const group = groups.get(key)
    if (group) group.push(item)
    else groups.set(key, [item])
  }
  return groups
}
