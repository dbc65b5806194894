/** Any bytes as what an agent has left in the runtime directory. */
import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isAlive } from '../../src/agent/os_process.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { withFiles } from './support.js'

export async function fuzz(data: Uint8Array): Promise<void> {
  await withFiles({}, (folder) => {
    const directory = RuntimeDirectory.open(folder)
    const path = join(folder, 'agents', 'a.json')
    writeFileSync(path, data, { mode: 0o600 })
    const agents = directory.agents()
    for (const { pid, startTime, url, listen } of agents) {
      assert.ok(isAlive({ pid, startTime }))
      assert.equal(typeof url, 'string')
      assert.ok(listen === undefined || typeof listen === 'string')
    }
    assert.equal(directory.sweepAgents().length, 1 - agents.length)
    assert.equal(existsSync(path), agents.length === 1)
  })
}
