/** Calls while their process cannot be had: its host was killed, and its workers do not come up. */
import { existsSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import type { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import { clusterForTest, failureOf } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

/** The application's workers stand still while the file `held` is there. */
async function processThatIsHeld(): Promise<{ held: string; served: Process; cluster: Cluster }> {
  const folder = temporaryFolder()
  const held = join(folder, 'held')
  const app = join(folder, 'app.ts')
  writeFileSync(
    app,
    `import { existsSync } from 'node:fs'
     const cell = new Int32Array(new SharedArrayBuffer(4))
     while (existsSync(${JSON.stringify(held)})) Atomics.wait(cell, 0, 0, 5)
     export const echo = (input: Uint8Array): Uint8Array => input`,
  )
  const started = await clusterForTest({ app })
  await started.cluster.process('held')
  const cluster = await connect(started.cluster.url, { token: started.directory.token() })
  onTestFinished(() => cluster.close())
  const served = await cluster.process('held', { create: false })
  await served.state.set('key', Buffer.from('value'))
  writeFileSync(held, '')
  onTestFinished(() => rmSync(held, { force: true }))
  process.kill(served.connection?.hostPid ?? 0, 'SIGKILL')
  await expect.poll(() => served.connection, { timeout: 30_000 }).toBeUndefined()
  expect(existsSync(held)).toBe(true)
  return { held, served, cluster }
}

const input = Buffer.from('input')

it('end with their own deadline, as what they are', async () => {
  const { served } = await processThatIsHeld()
  expect(await failureOf(served.invoke('echo', input, { timeoutMs: 50 }))).toMatchObject({
    code: 'ERR_INVOCATION_TIMEOUT',
    cause: { code: 'ERR_CONNECTION_TIMEOUT' },
  })
  expect(await failureOf(served.state.get('key', { timeoutMs: 50 }))).toMatchObject({ code: 'ERR_CONNECTION_TIMEOUT' })
  expect(await failureOf(served.connect({ timeoutMs: 50 }))).toMatchObject({ code: 'ERR_CONNECTION_TIMEOUT' })
})

it('do not wait for the deadline of another that began to connect', async () => {
  const { held, served } = await processThatIsHeld()
  const patient = served.invoke('echo', input, { timeoutMs: 50_000 })
  expect((await failureOf(served.invoke('echo', input, { timeoutMs: 50 }))).code).toBe('ERR_INVOCATION_TIMEOUT')
  expect((await failureOf(served.state.get('key', { timeoutMs: 50 }))).code).toBe('ERR_CONNECTION_TIMEOUT')
  rmSync(held)
  expect(Buffer.from(await patient).toString()).toBe('input')
})

it('do not fail with one that began to connect and had less time', async () => {
  const { held, served } = await processThatIsHeld()
  const hasty = failureOf(served.invoke('echo', input, { timeoutMs: 50 }))
  const patient = served.state.get('key', { timeoutMs: 50_000 })
  expect((await hasty).code).toBe('ERR_INVOCATION_TIMEOUT')
  rmSync(held)
  expect(Buffer.from((await patient) ?? []).toString()).toBe('value')
})

it('are told that this program has closed the cluster, when it has', async () => {
  const { served, cluster } = await processThatIsHeld()
  const waiting = failureOf(served.invoke('echo', input, { timeoutMs: 50_000 }))
  await cluster.close()
  expect((await waiting).code).toBe('ERR_CLUSTER_CLOSED')
})
