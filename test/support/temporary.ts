/** Folders that go with the test. Their names are short, because sockets lie in them. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'

export function makeTemporaryFolder(): string {
  return mkdtempSync(join(tmpdir(), 'praas-t-'))
}

/** Removed when the present test ends. */
export function temporaryFolder(): string {
  const folder = makeTemporaryFolder()
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}
