import { expect, it } from 'vitest'
import { appName, entryKind } from '../../src/deploy/entry.js'

it.each([
  ['/srv/solver/heat.ts', 'module', 'heat'],
  ['/srv/solver/heat.mjs', 'module', 'heat'],
  ['/srv/libfns.so', 'library', 'libfns'],
  ['/srv/libfns.so.1', 'library', 'libfns'],
  ['/srv/libfns.so.1.2.3', 'library', 'libfns'],
  ['/srv/lib.fns.so', 'library', 'lib.fns'],
  ['/srv/also', 'module', 'also'],
  ['/srv/functions.json', 'table', 'functions'],
] as const)('%s is a %s, and its application is called %s', (path, kind, name) => {
  expect(entryKind(path)).toBe(kind)
  expect(appName(path)).toBe(name)
})
