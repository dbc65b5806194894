/** The embedded cluster: agent and control plane inside the program that uses them. */
import type { AddressInfo } from 'node:net'
import { chmodSync } from 'node:fs'
import { rm } from 'node:fs/promises'
import { z } from 'zod'
import { Cluster } from '../client/cluster.js'
import { unixUrl } from '../client/control_client.js'
import {
  createShape,
  dataShape,
  toLinkOptions,
  toProcessOptions,
  type CreateOptions,
  type DataOptions,
} from '../client/process_options.js'
import type { ControlPlane } from '../control.js'
import { ArgumentError } from '../errors.js'
import { integer, parseOptions } from '../options.js'
import { Agent, type AgentOptions } from './agent.js'
import { buildControlServer } from './control_server.js'
import { startTimeOf } from './os_process.js'
import { RuntimeDirectory, type AgentPaths } from './runtime_directory.js'

/** Options of a local cluster; those of processes are defaults for all of its processes. */
export interface LocalOptions extends CreateOptions, Omit<DataOptions, 'hotMs'> {
  /** For sockets, token and logs. Default: PRAAS_RUNTIME_DIR, `$XDG_RUNTIME_DIR/praas` or `/tmp/praas-UID`. */
  readonly runtimeDir?: string
  /** Also reachable from other machines: `HOST:PORT` of the control plane. Default: no. */
  readonly listen?: string
  /** Process hosts kept waiting for new processes, 0 … 64. Default: 0. */
  readonly prewarm?: number
  /** Leaves the state of its processes behind. Default: false. */
  readonly keep?: boolean
  /** A view that a function keeps beyond its invocation is found empty. Costs copies. Default: PRAAS_CHECK_VIEWS=1. */
  readonly checkViews?: boolean
  /** Packages of `app` that are not bundled but resolved from it at run time. */
  readonly external?: readonly string[]
}

const schema = z.object({
  ...createShape,
  transport: dataShape.transport,
  window: dataShape.window,
  checksum: dataShape.checksum,
  connectTimeoutMs: dataShape.connectTimeoutMs,
  runtimeDir: z.string().min(1).optional(),
  listen: z.string().optional(),
  prewarm: integer(0, 64).optional(),
  keep: z.boolean().optional(),
  checkViews: z.boolean().optional(),
  external: z.array(z.string().min(1)).optional(),
})

export async function startLocalCluster(options: LocalOptions): Promise<Cluster> {
  const parsed = parseOptions(schema, options, 'Cluster.local')
  const {
    runtimeDir,
    listen,
    prewarm,
    keep,
    checkViews,
    external,
    transport,
    window,
    checksum,
    connectTimeoutMs,
    ...create
  } = parsed
  const address = listen === undefined ? undefined : parseAddress(listen)
  const directory = RuntimeDirectory.open(runtimeDir)
  // What cannot be removed is no reason not to start.
  const removed = directory.deadAgents().map((folder) => rm(folder, { recursive: true, force: true }))
  await Promise.allSettled(removed)
  const { app, ...defaults } = toProcessOptions(create)
  const local = new LocalControl(directory, {
    listenHost: address?.host ?? '127.0.0.1',
    defaults,
    prewarm: prewarm ?? 0,
    checkViews: checkViews ?? process.env['PRAAS_CHECK_VIEWS'] === '1',
    keep: keep ?? false,
  })
  try {
    if (app !== undefined) await local.deploy({ entry: app, ...(external ? { external } : {}) })
    await local.listen(address)
  } catch (error) {
    await local.close()
    throw error
  }
  const link = toLinkOptions({ transport, window, checksum, connectTimeoutMs, hotMs: create.hotMs })
  return new Cluster(local, link, directory.path)
}

interface Address {
  readonly host: string
  readonly port: number
}

/** The agent with its servers, and its end when the program forgets to close it. */
class LocalControl implements ControlPlane {
  readonly #agent: Agent
  readonly #directory: RuntimeDirectory
  readonly #paths: AgentPaths
  #listenUrl: string | undefined
  readonly #servers: ReturnType<typeof buildControlServer>[] = []
  /** Node ends without waiting for anything, so this is synchronous. */
  readonly #onExit = (): void => {
    this.#agent.kill()
    this.#directory.removeAgentFolder(this.#paths)
  }

  constructor(directory: RuntimeDirectory, options: Omit<AgentOptions, 'directory' | 'apps' | 'url'>) {
    this.#directory = directory
    this.#paths = directory.createAgentFolder({ pid: process.pid, startTime: startTimeOf(process.pid) ?? '' })
    const { apps, socket } = this.#paths
    try {
      this.#agent = new Agent({ ...options, directory, apps, url: unixUrl(socket) })
    } catch (error) {
      directory.removeAgentFolder(this.#paths)
      throw error
    }
    process.once('exit', this.#onExit)
  }

  async listen(address: Address | undefined): Promise<void> {
    const { socket } = this.#paths
    const local = buildControlServer(this.#agent, this.#directory)
    this.#servers.push(local)
    await local.listen({ path: socket })
    chmodSync(socket, 0o600) // in a folder that is closed to others anyway
    local.server.unref()
    if (address) {
      const remote = buildControlServer(this.#agent, this.#directory)
      this.#servers.push(remote)
      await remote.listen({ host: address.host, port: address.port })
      remote.server.unref()
      const { port } = remote.server.address() as AddressInfo
      this.#listenUrl = `http://${address.host.includes(':') ? `[${address.host}]` : address.host}:${port}`
    }
    this.#directory.announce(this.#paths, {
      url: this.#agent.url,
      ...(this.#listenUrl === undefined ? {} : { listen: this.#listenUrl }),
    })
  }

  get listenUrl(): string | undefined {
    return this.#listenUrl
  }

  get url(): string {
    return this.#agent.url
  }

  readonly list: ControlPlane['list'] = () => this.#agent.list()
  readonly find: ControlPlane['find'] = (id, wait) => this.#agent.find(id, wait)
  readonly ensure: ControlPlane['ensure'] = (id, options, wait) => this.#agent.ensure(id, options, wait)
  readonly token: ControlPlane['token'] = (id, request) => this.#agent.token(id, request)
  readonly drain: ControlPlane['drain'] = (id, timeoutMs) => this.#agent.drain(id, timeoutMs)
  readonly remove: ControlPlane['remove'] = (id, options) => this.#agent.remove(id, options)
  readonly deploy: ControlPlane['deploy'] = (request) => this.#agent.deploy(request)
  readonly logs: ControlPlane['logs'] = (id, offset, waitMs, signal) => this.#agent.logs(id, offset, waitMs, signal)

  async close(): Promise<void> {
    // Withdrawn first, so that nobody finds a cluster that is ending.
    this.#directory.withdraw(this.#paths)
    await this.#agent.close()
    await Promise.all(this.#servers.map((server) => server.close()))
    this.#directory.removeAgentFolder(this.#paths)
    process.off('exit', this.#onExit)
  }
}

function parseAddress(text: string): Address {
  const match = /^(?:\[([^\]]+)\]|([^:[\]]*)):(\d{1,5})$/.exec(text)
  const port = Number(match?.[3])
  if (!match || port > 65_535) {
    throw new ArgumentError(
      `option listen: expected HOST:PORT, such as 0.0.0.0:7070 or [::]:0, received ${JSON.stringify(text)}`,
    )
  }
  return { host: match[1] ?? (match[2] || '127.0.0.1'), port }
}
