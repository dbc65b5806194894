/** Shared objects that are damaged: each is read as what it says, or refused with what is wrong. */
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { describeLibrary } from '../../src/deploy/native_library.js'
import { DeployError } from '../../src/errors.js'
import { compileLibrary, rawFunction } from '../support/compile.js'
import { givenSeed, mutated, seededNumbers } from '../support/mutations.js'
import { temporaryFolder } from '../support/temporary.js'

const seed = givenSeed()

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
