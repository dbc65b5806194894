/** Files kept under the hash of their contents: deploying anew adds a folder and never changes what workers have loaded. */
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { codeOf } from '../errors.js'

export interface StoredFile {
  readonly name: string
  readonly contents: Uint8Array
}

/** SHA-256, 16 hex digits. */
export function contentHash(contents: Uint8Array | string): string {
  return createHash('sha256').update(contents).digest('hex').slice(0, 16)
}

/** Writes the files of one hash, unless they are there. @returns the folder they lie in */
export function storeContents(folder: string, hash: string, files: readonly StoredFile[]): string {
  const target = join(folder, hash)
  if (existsSync(target)) return target
  // Renamed into place when complete: workers of another agent may be looking for the same contents.
  const draft = join(folder, `draft-${randomBytes(6).toString('hex')}`)
  mkdirSync(draft, { recursive: true, mode: 0o700 })
  for (const { name, contents } of files) writeFileSync(join(draft, name), contents, { mode: 0o600 })
  try {
    renameSync(draft, target)
  } catch (error) {
    rmSync(draft, { recursive: true, force: true })
    if (codeOf(error) !== 'ENOTEMPTY' && codeOf(error) !== 'EEXIST') throw error
  }
  return target
}
