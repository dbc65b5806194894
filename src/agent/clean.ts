/** Removes what dead clusters left behind. Never touches anything of a host or agent that is alive. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { hostIsAlive, readRegistry, removeObject, segmentInUse, type NamedObject } from './named_objects.js'
import type { RuntimeDirectory } from './runtime_directory.js'

export interface Cleaned {
  readonly removed: readonly NamedObject[]
  /** Processes left alone because their host lives. */
  readonly alive: number
}

/** @param options.dryRun  Only says what would go. */
export function cleanRuntimeDirectory(
  directory: RuntimeDirectory,
  { dryRun = false }: { readonly dryRun?: boolean } = {},
): Cleaned {
  const removed: NamedObject[] = []
  let alive = 0
  for (const folder of directory.processFolders()) {
    const registry = readRegistry(join(folder, 'objects'))
    // The lock of the segment is the last word: a host that is just starting has not noted itself yet.
    const locked = registry.objects.some(({ kind, name }) => kind === 'shm' && segmentInUse(name))
    if (locked || hostIsAlive(registry)) {
      alive++
      continue
    }
    for (const object of registry.objects) {
      if (dryRun || removeObject(object)) removed.push(object)
    }
    if (!dryRun) rmSync(folder, { recursive: true, force: true })
  }
  if (!dryRun) removed.push(...directory.sweepAgents().map((name) => ({ kind: 'socket', name }) as const))
  return { removed, alive }
}
