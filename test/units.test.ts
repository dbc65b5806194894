import { describe, expect, it } from 'vitest'
import { ArgumentError } from '../src/errors.js'
import { formatDuration, formatSize, parseDuration, parseSize } from '../src/units.js'

describe('sizes', () => {
  it.each([
    [4096, 4096],
    ['4096', 4096],
    ['1 GiB', 2 ** 30],
    ['1.5GB', 1.5e9],
    ['64mib', 64 * 2 ** 20],
    ['0.5 KiB', 512],
    ['7 B', 7],
  ])('reads %s', (text, bytes) => {
    expect(parseSize(text, 'memory')).toBe(bytes)
  })

  it.each(['', 'lots', '1 XB', '-1 MiB', 'NaN', '1e9 TiB', '1 GiB extra', Infinity, -5, NaN])(
    'refuses %s by its name',
    (text) => {
      expect(() => parseSize(text, 'memory')).toThrow(ArgumentError)
      expect(() => parseSize(text, 'memory')).toThrow(/^memory is /)
    },
  )

  it('prints them shortly', () => {
    expect([0, 512, 1536, 2 ** 30, 10.25 * 2 ** 40].map(formatSize)).toEqual([
      '0 B',
      '512 B',
      '1.5 KiB',
      '1 GiB',
      '10.3 TiB',
    ])
  })
})

describe('durations', () => {
  it.each([
    [250, 250],
    ['250 ms', 250],
    ['5s', 5_000],
    ['1.5 min', 90_000],
    ['2 H', 7_200_000],
    ['1d', 86_400_000],
  ])('reads %s', (text, milliseconds) => {
    expect(parseDuration(text, 'timeout')).toBe(milliseconds)
  })

  it.each(['soon', '5 m', '', 'ms', NaN])('refuses %s', (text) => {
    expect(() => parseDuration(text, 'timeout')).toThrow(/timeout/)
  })

  it('prints them shortly', () => {
    expect([5, 1500, 90_000, 7_200_000, 2 * 86_400_000].map(formatDuration)).toEqual([
      '5 ms',
      '1.5 s',
      '1.5 min',
      '2 h',
      '2 d',
    ])
  })
})
