import { describe, expect, it } from 'vitest'
import { PraasError } from '../../src/errors.js'
import { formatLine, LineSplitter, maxLineBytes, parseLine } from '../../src/agent/line_protocol.js'

describe('lines', () => {
  it('survive a round trip with any text', () => {
    const values = { process: 'grid 7=ü\n%', port: '5', app: '{"a": "b=c d"}', empty: '' }
    const line = formatLine('assign', values)
    expect(line).toMatch(/^assign [^\n]*\n$/)
    expect(parseLine(line.slice(0, -1))).toEqual({ verb: 'assign', values })
  })

  it('take numbers and leave out what is undefined', () => {
    expect(formatLine('drain', { timeoutMs: 5, size: 7n, none: undefined })).toBe('drain timeoutMs=5 size=7\n')
    expect(formatLine('stop')).toBe('stop\n')
    expect(parseLine('stop')).toEqual({ verb: 'stop', values: {} })
  })

  it.each([
    '',
    ' port=1',
    'READY port=1',
    'ready port',
    'ready =1',
    'ready po_rt=1',
    'ready port=1 port=2',
    'ready port=%zz',
    '\0',
  ])('refuses %j', (line) => {
    expect(() => parseLine(line)).toThrow(PraasError)
  })

  it('cannot overwrite what objects inherit', () => {
    const { values } = parseLine('ready constructor=1')
    expect(values['constructor']).toBe('1')
  })
})

describe('LineSplitter', () => {
  it('puts lines together from any pieces, also within a character', () => {
    const text = Buffer.from('ready port=1\nworker name=ü\ndrained\n')
    for (let cut = 0; cut <= text.length; cut++) {
      const lines = new LineSplitter()
      expect([...lines.add(text.subarray(0, cut)), ...lines.add(text.subarray(cut))]).toEqual([
        'ready port=1',
        'worker name=ü',
        'drained',
      ])
    }
  })

  it('gives up on a line without an end', () => {
    const lines = new LineSplitter()
    expect(lines.add(Buffer.alloc(maxLineBytes, 'x'))).toEqual([])
    expect(() => lines.add(Buffer.from('x'))).toThrow(/longer than/)
  })
})
