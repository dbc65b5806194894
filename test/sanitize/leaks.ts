/** Looks for leaks of the addon when the tests of a file are done: vitest kills the process that ran them. */
import { dirname, join } from 'node:path'
import { afterAll } from 'vitest'

const addon = process.env['PRAAS_ADDON'] ?? ''

// Begun before those of the file, so it is the last to run.
afterAll(() => {
  process.dlopen({ exports: {} }, join(dirname(addon), 'libpraas_leaks.so'))
})
