/** Leases of workers that run native functions. */
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { failureOf, startCluster, type TestCluster } from '../support/cluster.js'
import { bytesOf, libraries, processBy, textOf, transports } from '../support/native.js'

const app = fileURLToPath(new URL('../fixtures/mixed_app.ts', import.meta.url))

let started: TestCluster
beforeAll(async () => {
  started = await startCluster()
  await started.cluster.deploy({ app, native: [libraries.c, libraries.rfaas], name: 'mixed' })
  await started.cluster.process('mixed', { app: 'mixed', leaseWorkers: 4 })
})
afterAll(() => started.close())

describe.each(transports)('a lease of native workers over %s', (transport) => {
  it('calls functions in C and of rFaaS', async () => {
    const process = await processBy(transport, started, 'mixed')
    await using lease = await process.lease({ runtime: 'native', workers: 2, hotMs: 0 })
    expect(textOf(await lease.invoke('reverse', bytesOf('abc')))).toBe('cba')
    expect(textOf(lease.invokeSync('reverse', bytesOf('abcd')))).toBe('dcba')
    expect(textOf(lease.invokeSync('copy', bytesOf('as it is')))).toBe('as it is')
    const inputs = Array.from({ length: 50 }, (_, index) => bytesOf(`n${index}`))
    let count = 0
    for await (const result of lease.invokeMany('reverse', inputs)) {
      expect(textOf(result)).toBe([...`n${count++}`].reverse().join(''))
    }
    expect(await lease.close()).toMatchObject({ lane: 'native', calls: 53 })
  })

  it('does not run functions of the other language', async () => {
    const process = await processBy(transport, started, 'mixed')
    await using lease = await process.lease({ runtime: 'native', hotMs: 0 })
    expect(await failureOf(lease.invoke('upper', bytesOf('abc')))).toHaveProperty('code')
    await using other = await process.lease({ hotMs: 0 })
    expect(textOf(await other.invoke('upper', bytesOf('abc')))).toBe('ABC')
    expect(await failureOf(other.invoke('reverse', bytesOf('abc')))).toHaveProperty('code')
  })
})
