import { readFileSync } from 'node:fs'
import { expect, it, onTestFinished, vi } from 'vitest'
import { printError, printTable } from '../../src/cli/output.js'

/** What a table prints. */
function printed(...cells: string[]): string {
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true)
  onTestFinished(() => write.mockRestore())
  printTable(['NAME', 'TEXT'], [cells])
  return write.mock.calls.map(([text]) => String(text)).join('')
}

it.each([
  ['colours', '\x1b[31mred\x1b[0m', '\\x1b[31mred\\x1b[0m'],
  ['the title of the terminal', '\x1b]0;root@here\x07', '\\x1b]0;root@here\\x07'],
  ['an escape of one character', '\u{9b}2J', '\\x9b2J'],
  ['a line that is written over', 'listed\rhidden', 'listed\\x0dhidden'],
  ['steps backwards', 'ab\b\bcd\x7f', 'ab\\x08\\x08cd\\x7f'],
])('tables show %s as text', (_what, name, shown) => {
  const text = printed(name, 'after')
  expect(text).toContain(shown)
  expect(text).not.toMatch(/(?!\n)\p{Cc}/u)
  // The columns are as wide as what is seen.
  const [head = '', row = ''] = text.split('\n')
  expect(row.indexOf('after')).toBe(head.indexOf('TEXT'))
})

it('tables leave lines and letters as they are', () => {
  expect(printed('Grüße, 世界', 'one\ntwo')).toMatch(/Grüße, 世界 +one +\n +two/)
})

it('errors of the system are told in one line, with their stack only when asked for', () => {
  const write = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  onTestFinished(() => write.mockRestore())
  const said = (verbose: boolean): string => {
    write.mockClear()
    try {
      readFileSync('/nowhere')
    } catch (error) {
      printError(error, { json: false, verbose })
    }
    return write.mock.calls.map(([text]) => String(text)).join('')
  }
  const line = "praas: ENOENT: no such file or directory, open '/nowhere' [ENOENT]\n"
  expect(said(false)).toBe(line)
  expect(said(true)).toMatch(/^praas: ENOENT.*\n.*\n +at /)
})
