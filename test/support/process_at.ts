/** Processes at an address that a test knows, whatever agents say. */
import { onTestFinished } from 'vitest'
import { ControlClient } from '../../src/client/control_client.js'
import { Link } from '../../src/client/link.js'
import { Process } from '../../src/client/process.js'
import type { ControlPlane, Endpoint, ProcessHandle } from '../../src/control.js'
import type { TestCluster } from './cluster.js'

const options = { transport: 'tcp', windowBytes: 2 ** 22, checksum: false, hotMs: 0, connectTimeoutMs: 30_000 } as const

/** What an agent says of a process now. */
export async function handleOf({ cluster, directory }: TestCluster, id: string): Promise<ProcessHandle> {
  const agent = new ControlClient(cluster.url, directory.token())
  try {
    return await agent.find(id, { timeoutMs: 30_000 })
  } finally {
    await agent.close()
  }
}

/** For one test: the process as a client reaches it that is told nothing but this, over TCP. */
export function processAt(handle: ProcessHandle, endpoint: Partial<Endpoint> = {}): Process {
  const found = { ...handle, endpoint: { ...handle.endpoint, ...endpoint } }
  const control = { find: () => Promise.resolve(found) } as Partial<ControlPlane> as ControlPlane
  const { id } = handle.process
  const made = new Process(id, control, new Link(control, { id, create: undefined }, options), () => undefined)
  onTestFinished(() => made.close())
  return made
}
