/** Any bytes as a function table, and what is made of it for native workers. */
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { readFunctionTable } from '../../src/deploy/function_table.js'
import { chooseFunctions, offerOfTable } from '../../src/deploy/native_functions.js'
import { checkHandedOn, unlessRefused, withFiles } from './support.js'

export async function fuzz(data: Uint8Array): Promise<void> {
  await withFiles({ 'functions.json': data, 'lib.so': '' }, async (folder) => {
    const table = join(folder, 'functions.json')
    const entries = await unlessRefused(['ERR_DEPLOY_FAILED'], () => readFunctionTable(table))
    if (!entries) return
    for (const { name, library, symbol } of entries) {
      assert.ok(name !== '' && symbol !== '')
      assert.ok(isAbsolute(library) && statSync(library).isFile())
    }
    // Nothing that it says is left out.
    const { functions } = JSON.parse(Buffer.from(data).toString('utf8')) as { functions: { cpp: object } }
    assert.deepEqual(
      entries.map(({ name }) => name),
      Object.keys(functions.cpp),
    )

    const library = {
      source: join(folder, 'lib.so'),
      path: join(folder, 'lib.so'),
      hash: '0',
      adapter: false,
      functions: entries.filter(({ symbol }) => isSymbol(symbol)).map(({ symbol }) => ({ name: symbol, ...raw })),
    }
    const chosen = await unlessRefused(['ERR_DEPLOY_FAILED'], () =>
      chooseFunctions(
        entries.map((entry) => offerOfTable(entry, library)),
        [library],
        {},
      ),
    )
    if (chosen) checkHandedOn(chosen)
  })
}

const raw = { abi: 'raw', flags: 0 } as const

/** Whether the dynamic loader could know a function by it: any text that C can hold. */
function isSymbol(text: string): boolean {
  return text.isWellFormed() && !text.includes('\0')
}
