/** Looks for leaks of the addon when the tests of a file are done: vitest kills the process that ran them. */
import { afterAll } from 'vitest'

// Begun before those of the file, so it is the last to run.
afterAll(() => {
  process.dlopen({ exports: {} }, process.env['PRAAS_LEAKS'] ?? '')
})
