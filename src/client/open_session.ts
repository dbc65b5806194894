/** Opens connections to process hosts, and to workers of leases. */
import type { Endpoint } from '../control.js'
import { native } from '../native/binding.js'
import { fromNative } from '../native/errors.js'
import { Session } from './session.js'

/** What the addon takes: a wait that polled for a second in vain may block from then on. */
const maxSpinUs = 1_000_000

/** How a client connects to processes. */
export interface LinkOptions {
  readonly transport: 'auto' | 'shm' | 'verbs' | 'tcp'
  readonly windowBytes: number
  readonly checksum: boolean
  readonly hotMs: number
  /** For one attempt to connect, and for the agent to bring a lost host back. */
  readonly connectTimeoutMs: number
}

/** A worker of a lease, as its host knows it. */
export interface LeasedPlace {
  readonly leaseKey: string
  /** From 0. */
  readonly leaseWorker: number
}

/** One attempt to connect, to the host of process `id` or to a worker that is leased from it. */
export async function openSession(
  id: string,
  endpoint: Endpoint,
  { transport, windowBytes, checksum, hotMs, connectTimeoutMs }: LinkOptions,
  timeoutMs: number,
  leased?: LeasedPlace,
): Promise<Session> {
  try {
    const connection = await native().connect({
      host: endpoint.host,
      port: endpoint.port,
      process: id,
      token: endpoint.token,
      transport,
      timeoutMs: Math.min(timeoutMs, connectTimeoutMs),
      windowBytes,
      checksum,
      spinUs: hotMs < 0 ? maxSpinUs : Math.min(hotMs * 1000, maxSpinUs),
      ...leased,
    })
    return new Session(connection, endpoint)
  } catch (error) {
    throw fromNative(error, { process: id })
  }
}
