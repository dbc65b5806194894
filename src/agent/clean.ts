/** Removes what dead clusters left behind. Never touches anything of a host or agent that is alive. */
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { hostIsAlive, readRegistry, removeObject, segmentInUse, type NamedObject } from './named_objects.js'
import type { RuntimeDirectory } from './runtime_directory.js'

/** An object of a host, or the folder of an agent. */
export type Leftover = NamedObject | { readonly kind: 'agent'; readonly name: string }

export interface Cleaned {
  readonly removed: readonly Leftover[]
  /** Processes left alone because their host lives. */
  readonly alive: number
}

/** @param options.dryRun  Only says what would go. */
export function cleanRuntimeDirectory(
  directory: RuntimeDirectory,
  { dryRun = false }: { readonly dryRun?: boolean } = {},
): Cleaned {
  const removed: Leftover[] = []
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
  for (const folder of directory.deadAgents()) {
    if (!dryRun) rmSync(folder, { recursive: true, force: true })
    removed.push({ kind: 'agent', name: folder })
  }
  return { removed, alive }
}
