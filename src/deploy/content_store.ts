/** Files kept under the hash of their contents: deploying anew adds a folder and never changes what workers have loaded. */
import { createHash, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

export interface StoredFile {
  readonly name: string
  readonly contents: Uint8Array
}

/** SHA-256, 16 hex digits. */
export function contentHash(contents: Uint8Array | string): string {
  return createHash('sha256').update(contents).digest('hex').slice(0, 16)
}

/** Writes the files of one hash, as far as they are not there and whole. @returns the folder they lie in */
export function storeContents(folder: string, hash: string, files: readonly StoredFile[]): string {
  const target = join(folder, hash)
  if (!existsSync(target)) create(target, files)
  // What others have left of them. Workers that have a file open keep it.
  for (const { name, contents } of files) {
    const path = join(target, name)
    if (holds(path, contents)) continue
    intoPlace(path, (draft) => {
      writeFileSync(draft, contents, { mode: 0o600 })
    })
  }
  return target
}

function create(target: string, files: readonly StoredFile[]): void {
  intoPlace(target, (draft) => {
    mkdirSync(draft, { recursive: true, mode: 0o700 })
    for (const { name, contents } of files) writeFileSync(join(draft, name), contents, { mode: 0o600 })
  })
}

/** Renamed when complete: workers may be looking for the same contents. */
function intoPlace(path: string, write: (draft: string) => void): void {
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  try {
    write(draft)
    renameSync(draft, path)
  } catch (error) {
    rmSync(draft, { recursive: true, force: true })
    throw error
  }
}

function holds(path: string, contents: Uint8Array): boolean {
  try {
    return readFileSync(path).equals(contents)
  } catch {
    return false
  }
}
