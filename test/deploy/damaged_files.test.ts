/** Files of an application that are damaged: each is read as what it says, or refused with what is wrong. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { formatLine, parseLine } from '../../src/agent/line_protocol.js'
import { readFunctionTable } from '../../src/deploy/function_table.js'
import { describeLibrary } from '../../src/deploy/native_library.js'
import { DeployError, PraasError } from '../../src/errors.js'
import { compileLibrary, rawFunction } from '../support/compile.js'
import { givenSeed, mutated, seededNumbers } from '../support/mutations.js'
import { temporaryFolder } from '../support/temporary.js'

const seed = givenSeed()

it(`function tables (seed ${seed})`, () => {
  const number = seededNumbers(seed)
  const entry = { code: { module: 'functions.json', function: 'add' }, trigger: { type: 'direct', nargs: 1 } }
  const sound = Buffer.from(JSON.stringify({ functions: { cpp: { sum: entry, mean: entry } } }))
  const path = join(temporaryFolder(), 'functions.json')
  let refused = 0
  for (let round = 0; round < 500; round += 1) {
    writeFileSync(path, mutated(sound, number))
    try {
      for (const { name, library, symbol } of readFunctionTable(path)) {
        expect([name.length > 0, symbol.length > 0, library]).toEqual([true, true, path])
      }
    } catch (error) {
      expect(error, readFileSync(path, 'latin1')).toBeInstanceOf(DeployError)
      refused += 1
    }
  }
  expect(refused).toBeGreaterThan(0)
})

it(`shared objects (seed ${seed})`, { timeout: 120_000 }, async () => {
  const number = seededNumbers(seed)
  const folder = temporaryFolder()
  const library = join(folder, 'libsound.so')
  compileLibrary(library, rawFunction('f'))
  const sound = readFileSync(library)
  const path = join(folder, 'libdamaged.so')
  // What the loader and the description read lies in front: headers, symbols, their names, the dynamic section.
  const head = sound.subarray(0, 4096)
  for (let round = 0; round < 40; round += 1) {
    const damaged = mutated(head, number)
    writeFileSync(path, Buffer.concat([damaged, round % 2 === 0 ? sound.subarray(head.length) : Buffer.of()]))
    try {
      for (const { name } of (await describeLibrary(path, { timeoutMs: 2_000 })).functions) expect(name).not.toBe('')
    } catch (error) {
      expect(error).toBeInstanceOf(DeployError) // the loader may crash: in an OS process of its own
    }
  }
})

it(`lines of a process host (seed ${seed})`, () => {
  const number = seededNumbers(seed)
  const sound = Buffer.from(formatLine('listening', { port: '7070', host: 'a b', note: 'x=y "z" \\ é' }))
  for (let round = 0; round < 2_000; round += 1) {
    const text = Buffer.from(mutated(sound, number)).toString('utf8')
    try {
      const { verb, values } = parseLine(text)
      expect(parseLine(formatLine(verb, values).trimEnd())).toEqual({ verb, values })
    } catch (error) {
      expect(error, text).toBeInstanceOf(PraasError)
    }
  }
})
