import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { machine, versions } from '../../src/bench/machine.js'
import { checkPlotName, writePlot } from '../../src/bench/plot.js'
import { checkTable, formatNs, formatRate, notesOn, quantityTable, resultTable, toCsv } from '../../src/bench/report.js'
import type { Report, Result } from '../../src/bench/result.js'
import { temporaryFolder } from '../support/temporary.js'

const result: Result = {
  ...{ suite: 'invoke', transport: 'shm', path: 'host', mode: 'hot', kind: 'ts', function: 'null', call: 'sync' },
  ...{
    client: 'invokeSync',
    bytes: 4_096,
    concurrency: 1,
    samples: 100,
    p50Ns: 1_234,
    p99Ns: 2_000,
    p999Ns: 3_000_000,
  },
  ...{ minNs: 900, opsPerSec: 812_345, floor: 'tcp+mq(64 B)', floorP50Ns: 617, floorOpsPerSec: 1.5e6 },
  ...{ minusFloorNs: 617, ratio: 2 },
}
const report: Report = {
  command: 'praas bench invoke',
  machine: { ...machine(), cores: 2, coreEach: false },
  versions: versions(),
  results: [
    result,
    { ...result, bytes: 64, function: '</script>,"quoted"' },
    { ...result, suite: 'throughput', concurrency: 64 },
  ],
  quantities: [{ suite: 'cold', name: 'memory', value: 2_048, unit: 'B' }],
}

it('figures have three digits and a unit', () => {
  expect([0.25, 950, 1_234, 12_345_678, 2e9].map(formatNs)).toEqual(['0.25 ns', '950 ns', '1.23 µs', '12.3 ms', '2 s'])
  expect([12, 1_234, 5.6e6].map(formatRate)).toEqual(['12 /s', '1.23 k/s', '5.6 M/s'])
  expect(formatNs(null)).toBe('')
  expect(formatNs(-1_234)).toBe('-1.23 µs')
})

it('tables leave out what says nothing', () => {
  const { head, rows } = resultTable([result])
  expect(head).not.toContain('IN FLIGHT')
  expect(head).not.toContain('KEYS')
  expect(rows[0]).toContain('4 KiB')
  for (const column of ['PATH', 'BANDWIDTH', 'FLOOR BANDWIDTH']) expect(head).not.toContain(column)
  expect(resultTable([result, { ...result, path: 'lease' }]).head).toContain('PATH')
  expect(resultTable(report.results).head).toContain('IN FLIGHT')
  expect(quantityTable(report.quantities).rows).toEqual([['memory', '2 KiB']])
})

it('tables say what the floor leaves, and how many bytes go one way', () => {
  const { head, rows } = resultTable([
    { ...result, transport: 'tcp', function: 'discard', bytes: 2 ** 20, p50Ns: 2e6, floorP50Ns: 1e6 },
  ])
  const cell = (column: string): string | undefined => rows[0]?.[head.indexOf(column)]
  expect(cell('MINUS FLOOR')).toBe('617 ns')
  expect(cell('BANDWIDTH')).toBe('500 MiB/s')
  expect(cell('FLOOR BANDWIDTH')).toBe('1000 MiB/s')
})

it('checks say whether they are met', () => {
  const late = { suite: 'lease', name: 'late', unit: 'ms', most: 50 } as const
  const files = { suite: 'lease', name: 'files', unit: '', most: 0 } as const
  const { rows } = checkTable([
    { ...late, value: 50 },
    { ...late, value: 50.4 },
    { ...files, value: -1 },
  ])
  expect(rows).toEqual([
    ['late', '50 ms', '50 ms', 'met'],
    ['late', '50.4 ms', '50 ms', 'NOT MET'],
    ['files', '-1', '0', 'met'],
  ])
})

it('CSV quotes what needs it', () => {
  const lines = toCsv(report.results).split('\r\n')
  expect(lines).toHaveLength(report.results.length + 2)
  expect(lines[0]).toMatch(/^suite,transport,path,mode,kind,function,call,client,bytes,concurrency,/)
  expect(lines[0]).toMatch(/,floor,floorP50Ns,floorOpsPerSec,minusFloorNs,ratio$/)
  expect(lines[1]).toMatch(/^invoke,shm,host,hot,ts,null,sync,invokeSync,4096,1,,,,,100,1234,/)
  expect(lines[2]).toContain('"</script>,""quoted"""')
})

it('says where, and that not everybody has a core', () => {
  expect(notesOn(report)).toHaveLength(3)
  expect(notesOn(report)[0]).toBe('praas bench invoke')
  expect(notesOn(report)[2]).toMatch(/Client, host and worker have no core each \(2 for three\)/)
  expect(notesOn({ ...report, machine: { ...report.machine, coreEach: true } })).toHaveLength(2)
  expect(notesOn({ ...report, notes: ['a is not installed'] })[3]).toBe('Not measured: a is not installed.')
  const together = machine({ client: 0, worker: 1, host: 1 })
  expect(together.coreEach).toBe(false)
  expect(notesOn({ ...report, machine: together })[2]).toMatch(/no core each \(pinned to 0, 1 and 1\)/)
  expect(machine({ client: 0, worker: 1, host: 2 }).coreEach).toBe(true)
})

describe('plots', () => {
  it('are pages that need nothing else', async () => {
    const path = join(temporaryFolder(), 'out.html')
    await writePlot(path, report)
    const page = readFileSync(path, 'utf8')
    // The library is in the page; what a name contains ends no script. Short texts only: a failure prints them.
    const [library = '', charts = ''] = Array.from(page.matchAll(/<script>(.*?)<\/script>/gs), ([, code]) => code ?? '')
    expect(library.length).toBeGreaterThan(500_000)
    expect(charts).toContain('\\u003c/script>')
    const frame = page.replaceAll(/<script>.*?<\/script>/gs, '')
    expect(frame).not.toMatch(/src=|href=|script/)
    expect(frame.match(/<div id="chart-\d+"/g)).toHaveLength(3)
  })

  it('are SVG', async () => {
    const path = join(temporaryFolder(), 'out.svg')
    await writePlot(path, { ...report, results: [result] })
    const svg = readFileSync(path, 'utf8')
    expect(svg).toMatch(/^<svg xmlns=/)
    expect(svg).toContain('floor: tcp+mq')
    expect(svg).toContain('ts invokeSync')
  })

  it('are of these kinds only', () => {
    expect(() => checkPlotName('out.png')).toThrow(/--plot: expected a file name that ends in .html or .svg/)
  })
})
