/** Any bytes as what an agent has left in the runtime directory. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { startTimeOf } from '../../src/agent/os_process.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { withFiles } from './support.js'

const self = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' }

export async function fuzz(data: Uint8Array): Promise<void> {
  await withFiles({}, (folder) => {
    const directory = RuntimeDirectory.open(folder)
    writeFileSync(directory.createAgentFolder(self).record, data, { mode: 0o600 })
    for (const { url, listen } of directory.agents()) {
      assert.equal(typeof url, 'string')
      assert.ok(listen === undefined || typeof listen === 'string')
    }
    assert.deepEqual(directory.deadAgents(), [])
  })
}
