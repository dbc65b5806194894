import { closeSync, openSync, readdirSync, readFileSync, rmSync, statSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { contentHash, storeContents } from '../../src/deploy/content_store.js'
import { temporaryFolder } from '../support/temporary.js'

it('keeps files under a hash and never writes there again', () => {
  const folder = temporaryFolder()
  const hash = contentHash('first')
  expect(hash).toMatch(/^[0-9a-f]{16}$/)
  const stored = storeContents(folder, hash, [{ name: 'f', contents: Buffer.from('first') }])
  expect(stored).toBe(join(folder, hash))
  expect(readFileSync(join(stored, 'f'), 'utf8')).toBe('first')
  const { ino, mtimeMs } = statSync(join(stored, 'f'))
  expect(storeContents(folder, hash, [{ name: 'f', contents: Buffer.from('first') }])).toBe(stored)
  expect(statSync(join(stored, 'f'))).toMatchObject({ ino, mtimeMs })
  expect(readdirSync(folder)).toEqual([hash])
})

it('replaces what is damaged, and leaves it to those who have it open', () => {
  const folder = temporaryFolder()
  const hash = contentHash('first')
  const files = ['f', 'g'].map((name) => ({ name, contents: Buffer.from('first') }))
  const stored = storeContents(folder, hash, files)
  const path = join(stored, 'f')
  truncateSync(path, 2)
  const open = openSync(path, 'r')
  expect(storeContents(folder, hash, files)).toBe(stored)
  expect(readFileSync(path, 'utf8')).toBe('first')
  expect(readFileSync(open, 'utf8')).toBe('fi')
  closeSync(open)
  rmSync(join(stored, 'g'))
  storeContents(folder, hash, files)
  expect(readFileSync(join(stored, 'g'), 'utf8')).toBe('first')
  expect(readdirSync(folder)).toEqual([hash])
})

it('leaves nothing when it cannot write', () => {
  const folder = temporaryFolder()
  const files = ['f', 'nowhere/g'].map((name) => ({ name, contents: Buffer.from('first') }))
  expect(() => storeContents(folder, contentHash('first'), files)).toThrow('ENOENT')
  expect(readdirSync(folder)).toEqual([])
})
