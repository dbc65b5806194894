/** A cluster whose processes have workers for leases, and what tests of leases ask of it. */
import { afterAll, beforeAll, expect, onTestFinished } from 'vitest'
import type { Lease } from '../../src/client/lease.js'
import type { LeaseNotice } from '../../src/client/lease_notices.js'
import type { LeaseOptions } from '../../src/client/lease_options.js'
import type { Process } from '../../src/client/process.js'
import { startCluster, type TestCluster } from './cluster.js'
import { connectBy, type Transport } from './native.js'

/** What function `who` says of its worker. */
export interface Who {
  readonly pid: number
  readonly processId: string
}

/** The cluster of this test file. */
export let started: TestCluster
beforeAll(async () => {
  started = await startCluster({ workers: 1, leaseWorkers: 8 })
})
afterAll(() => started.close())

/** A process of its own, so that one test's leases are not another's, reached by one transport. */
export async function processFor(transport: Transport, options: object = {}): Promise<Process> {
  const id = `leased-${Math.random()}`
  const created = await started.cluster.process(id, options)
  onTestFinished(async () => {
    const left = await started.cluster.processes()
    if (left.some((process) => process.id === id)) await created.stop()
  })
  const cluster = await connectBy(transport, started)
  onTestFinished(() => cluster.close())
  return cluster.process(id, { create: false })
}

/** Workers that sleep: a test machine has few processors. */
export async function take(process: Process, options: LeaseOptions = {}): Promise<Lease> {
  const lease = await process.lease({ hotMs: 0, ...options })
  onTestFinished(async () => {
    await lease.close()
  })
  return lease
}

export const pidOf = (lease: Lease, worker = 0): number => lease.workers[worker]?.pid ?? 0

export function collected(): { readonly notices: LeaseNotice[]; readonly onNotice: (notice: LeaseNotice) => void } {
  const notices: LeaseNotice[] = []
  return { notices, onNotice: (notice) => notices.push(notice) }
}

export async function until(notices: readonly LeaseNotice[], event: LeaseNotice['event']): Promise<LeaseNotice> {
  await expect.poll(() => notices.map((notice) => notice.event), { timeout: 30_000 }).toContain(event)
  return notices.find((notice) => notice.event === event) as LeaseNotice
}

export async function all<Item>(items: AsyncIterable<Item>): Promise<Item[]> {
  const found: Item[] = []
  for await (const item of items) found.push(item)
  return found
}

export function thrownBy(run: () => unknown): Error {
  try {
    run()
  } catch (error) {
    return error as Error
  }
  throw new Error('it did not fail')
}
