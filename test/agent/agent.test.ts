import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { Agent } from '../../src/agent/agent.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import type { Endpoint } from '../../src/control.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

it('says where a host listens before its workers are ready', async () => {
  const folder = temporaryFolder()
  const gate = join(folder, 'gate')
  writeFiles(folder, {
    'app.ts': `
import { existsSync } from 'node:fs'
while (!existsSync(${JSON.stringify(gate)})) await new Promise((resolve) => setTimeout(resolve, 5))
export const f = () => undefined`,
  })
  const directory = RuntimeDirectory.open(join(folder, 'run'))
  const given = { url: 'praas+unix:/nowhere', listenHost: '127.0.0.1', defaults: {}, prewarm: 0 }
  const agent = new Agent({ directory, checkViews: false, keep: false, ...given })
  onTestFinished(() => agent.close())

  let listens: (endpoint: Endpoint) => void = () => undefined
  const listening = new Promise<Endpoint>((resolve) => (listens = resolve))
  const options = { app: join(folder, 'app.ts'), memoryBytes: 2 ** 24, poolBytes: 2 ** 24 }
  const ensured = agent.ensure('p', options, { timeoutMs: 30_000, onListening: (endpoint) => listens(endpoint) })
  const endpoint = await listening
  expect((await agent.list()).map(({ state }) => state)).toEqual(['starting'])
  writeFileSync(gate, '')
  const { host, port } = endpoint
  expect((await ensured).endpoint).toMatchObject({ host, port })
})
