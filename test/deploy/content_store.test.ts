import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
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
  writeFileSync(join(stored, 'f'), 'in use')
  expect(storeContents(folder, hash, [{ name: 'f', contents: Buffer.from('first') }])).toBe(stored)
  expect(readFileSync(join(stored, 'f'), 'utf8')).toBe('in use')
  expect(readdirSync(folder)).toEqual([hash])
})
