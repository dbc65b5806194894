/** Any bytes as what a host has noted of the objects it makes: nothing else is taken for one of them. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { hostIsAlive, readRegistry } from '../../src/agent/named_objects.js'
import { withFiles } from './support.js'

export async function fuzz(data: Uint8Array): Promise<void> {
  await withFiles({ objects: data }, (folder) => {
    const registry = readRegistry(join(folder, 'objects'))
    for (const { kind, name } of registry.objects) {
      if (kind === 'socket') assert.equal(name, join(folder, 'host.sock'))
      else assert.match(name, /^\/praas-[^/\0]+$/)
    }
    hostIsAlive(registry)
  })
}
