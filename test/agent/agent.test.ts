import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { Agent } from '../../src/agent/agent.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { Cluster } from '../../src/client/cluster.js'
import type { Endpoint } from '../../src/control.js'
import { expectNothingLeft, failureOf, fixtureApp } from '../support/cluster.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

const small = { memoryBytes: 2 ** 24, poolBytes: 2 ** 24 }
const hourMs = 3_600_000

function agentIn(folder: string): { readonly agent: Agent; readonly directory: RuntimeDirectory } {
  const directory = RuntimeDirectory.open(join(folder, 'run'))
  const given = { url: 'praas+unix:/nowhere', listenHost: '127.0.0.1', defaults: small, prewarm: 0 }
  const agent = new Agent({ directory, apps: join(folder, 'apps'), checkViews: false, keep: false, ...given })
  onTestFinished(() => agent.close())
  return { agent, directory }
}

/** Says where the host listens. */
function listening(): { readonly endpoint: Promise<Endpoint>; readonly onListening: (endpoint: Endpoint) => void } {
  let onListening!: (endpoint: Endpoint) => void
  const endpoint = new Promise<Endpoint>((resolve) => (onListening = resolve))
  return { endpoint, onListening }
}

it('ends after what it deploys, and deploys nothing then', async () => {
  const { agent } = agentIn(temporaryFolder())
  const order: string[] = []
  const deployed = agent.deploy({ entry: fixtureApp }).then(() => order.push('deployed'))
  await agent.close().then(() => order.push('closed'))
  await deployed
  expect(order).toEqual(['deployed', 'closed'])
  expect(await failureOf(agent.deploy({ entry: fixtureApp }))).toMatchObject({ code: 'ERR_PROCESS_DRAINING' })
})

it('says where a host listens before its workers are ready', async () => {
  const folder = temporaryFolder()
  const gate = join(folder, 'gate')
  writeFiles(folder, {
    'app.ts': `
import { existsSync } from 'node:fs'
while (!existsSync(${JSON.stringify(gate)})) await new Promise((resolve) => setTimeout(resolve, 5))
export const f = () => undefined`,
  })
  const { agent } = agentIn(folder)
  const { endpoint, onListening } = listening()
  const ensured = agent.ensure('p', { app: join(folder, 'app.ts') }, { timeoutMs: 30_000, onListening })
  const { host, port } = await endpoint
  expect((await agent.list()).map(({ state }) => state)).toEqual(['starting'])
  writeFileSync(gate, '')
  expect((await ensured).endpoint).toMatchObject({ host, port })
})

it('ends while a process is being created that is never ready', async () => {
  const folder = temporaryFolder()
  writeFiles(folder, {
    'app.ts': `
setInterval(() => undefined, 1_000)
await new Promise(() => undefined)
export const f = () => undefined`,
  })
  const { agent, directory } = agentIn(folder)
  const { endpoint, onListening } = listening()
  const refused = failureOf(agent.ensure('p', { app: join(folder, 'app.ts') }, { timeoutMs: hourMs, onListening }))
  await endpoint
  await agent.close()
  expect((await refused).code).toBe('ERR_PROCESS_DRAINING')
  expect(await agent.list()).toEqual([])
  expectNothingLeft(directory, 'p')
})

it('ends while a process is being ended that waits for its calls, and leaves what that keeps', async () => {
  const { agent, directory } = agentIn(temporaryFolder())
  const link = { transport: 'tcp', windowBytes: 2 ** 22, checksum: false, hotMs: 0, connectTimeoutMs: 30_000 } as const
  const process = await new Cluster(agent, link, directory.path).process('p', { app: fixtureApp })
  const running = failureOf(process.invoke('sleep', hourMs, { timeoutMs: hourMs }))
  await expect.poll(() => process.state.get('sleeping')).toBeDefined()
  const removed = agent.remove('p', { timeoutMs: hourMs, keep: true })
  await expect.poll(async () => (await agent.list())[0]?.state).toBe('draining')
  await agent.close(0)
  await removed
  await running
  expect(await agent.list()).toEqual([])
  const { agent: next } = agentIn(join(directory.path, '..'))
  await next.ensure('p', { app: fixtureApp }, { timeoutMs: 30_000 })
  expect(await next.list()).toMatchObject([{ id: 'p', attached: true }])
})
