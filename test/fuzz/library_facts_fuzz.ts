/** Any bytes as what a library lets praas-worker say about it, and what is made of that for native workers. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { chooseFunctions, offersOfLibrary } from '../../src/deploy/native_functions.js'
import { describeLibrary } from '../../src/deploy/native_library.js'
import { packageRoot } from '../../src/package.js'
import { checkHandedOn, unlessRefused, withFiles } from './support.js'

const executable = join(packageRoot, 'test', 'fuzz', 'describe.sh')

export async function fuzz(data: Uint8Array): Promise<void> {
  await withFiles({ says: data }, async (folder) => {
    const facts = await unlessRefused(['ERR_DEPLOY_FAILED'], () =>
      describeLibrary(join(folder, 'says'), { executable }),
    )
    if (!facts) return
    assert.ok(facts.library.startsWith('/'))
    for (const { name, flags } of facts.functions) {
      assert.ok(name !== '' && Number.isSafeInteger(flags) && flags >= 0)
    }
    const library = { source: '/lib.so', path: facts.library, hash: '0', ...facts }
    const chosen = await unlessRefused(['ERR_DEPLOY_FAILED', 'ERR_PAYLOAD_CODEC'], () =>
      chooseFunctions(offersOfLibrary(library), [library], {}),
    )
    if (chosen) checkHandedOn(chosen)
  })
}
