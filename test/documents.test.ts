import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { errorCodes } from '../src/errors.js'

const read = (path: string): string => readFileSync(new URL(`../${path}`, import.meta.url), 'utf8')

it('docs/errors.md lists every error code and no other', () => {
  const listed = [...read('docs/errors.md').matchAll(/^\| `(ERR_\w+)` \|/gm)].map(([, code]) => code)
  expect(listed.sort()).toEqual([...errorCodes.keys()].sort())
})

it('every code of the core is one of the public ones, or explained above them', () => {
  const codes = [...read('native/base/status.cc').matchAll(/return "(ERR_\w+)"/g)].map(([, code]) => code)
  expect(codes.length).toBeGreaterThan(30)
  const [explained] = read('docs/errors.md').split('\n## ')
  for (const code of codes)
    if (explained?.includes(`\`${code}\``) !== true) expect([...errorCodes.keys()]).toContain(code)
})
