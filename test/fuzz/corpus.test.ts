/** What fuzzing has found for the targets in TypeScript, and what it began with, once more: scripts/fuzz looks for more. */
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'

const suffix = '_fuzz.ts'
const names = readdirSync(import.meta.dirname).flatMap((file) =>
  file.endsWith(suffix) ? file.slice(0, -suffix.length) : [],
)

describe.each(names)('%s', async (name) => {
  const { fuzz } = (await import(`./${name}_fuzz.ts`)) as { fuzz: (data: Uint8Array) => Promise<void> }
  const folder = join(import.meta.dirname, 'corpus', name)
  it.each(readdirSync(folder))('%s', async (file) => {
    await expect(fuzz(Uint8Array.from(readFileSync(join(folder, file))))).resolves.toBeUndefined()
  })
})
