/** Folders for sockets and configuration, which do not outlive this process. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const folders = new Set<string>()
process.on('exit', () => folders.forEach(removeFolder))

export function temporaryFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'praas-peers-'))
  folders.add(folder)
  return folder
}

export function removeFolder(folder: string): void {
  folders.delete(folder)
  rmSync(folder, { recursive: true, force: true })
}
