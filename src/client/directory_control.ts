/** All agents of a runtime directory as one control plane. Several programs of a user may each run processes. */
import { RuntimeDirectory } from '../agent/runtime_directory.js'
import type {
  AppDescription,
  ControlPlane,
  DeployRequest,
  LogChunk,
  ProcessDescription,
  ProcessHandle,
  ProcessOptions,
  TokenRequest,
  WaitOptions,
} from '../control.js'
import { codeOf, ConnectionError, ProcessError } from '../errors.js'
import { ControlClient } from './control_client.js'

export class DirectoryControl implements ControlPlane {
  readonly #path: string
  readonly #token: string | undefined
  /** By URL. */
  readonly #clients = new Map<string, ControlClient>()

  /** @param token  Instead of that of the directory. */
  constructor(path: string, token: string | undefined) {
    this.#path = path
    this.#token = token
  }

  /** Of the agent that would get the next process. */
  get url(): string {
    return this.#live()[0]?.url ?? ''
  }

  async list(): Promise<ProcessDescription[]> {
    const lists = await Promise.all(this.#agents().map((agent) => agent.list()))
    return lists.flat().sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  async find(id: string, wait: WaitOptions): Promise<ProcessHandle> {
    return (await this.#owner(id)).find(id, wait)
  }

  async ensure(id: string, options: ProcessOptions, wait: WaitOptions): Promise<ProcessHandle> {
    const owner = await this.#ownerIfAny(id)
    return (owner ?? this.#first()).ensure(id, options, wait)
  }

  async token(id: string, request: TokenRequest): Promise<string> {
    return (await this.#owner(id)).token(id, request)
  }

  async drain(id: string, timeoutMs: number): Promise<void> {
    return (await this.#owner(id)).drain(id, timeoutMs)
  }

  async remove(id: string, options: { readonly timeoutMs: number; readonly keep: boolean }): Promise<void> {
    return (await this.#owner(id)).remove(id, options)
  }

  async deploy(request: DeployRequest): Promise<AppDescription> {
    return this.#first().deploy(request)
  }

  async logs(id: string, offset: number, waitMs: number, signal?: AbortSignal): Promise<LogChunk> {
    return (await this.#owner(id)).logs(id, offset, waitMs, signal)
  }

  /** Tells whether anybody is there, and whether the token is right. */
  async health(timeoutMs: number): Promise<void> {
    await Promise.all(this.#agents().map((agent) => agent.health(timeoutMs)))
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#clients.values(), (client) => client.close()))
    this.#clients.clear()
  }

  async #owner(id: string): Promise<ControlClient> {
    const owner = await this.#ownerIfAny(id)
    if (!owner)
      throw new ProcessError(
        'ERR_PROCESS_UNKNOWN',
        `there is no process ${JSON.stringify(id)}; \`praas ps\` lists them`,
      )
    return owner
  }

  async #ownerIfAny(id: string): Promise<ControlClient | undefined> {
    const agents = this.#agents()
    // One agent decides by itself; among several the one that has the process is asked.
    const [only] = agents
    if (agents.length === 1) return only
    const lists = await Promise.all(agents.map(listOrNothing))
    return agents.find((_, index) => lists[index]?.some((process) => process.id === id))
  }

  #first(): ControlClient {
    const [first] = this.#agents()
    if (!first) throw this.#nobody()
    return first
  }

  #agents(): ControlClient[] {
    const agents = this.#live().map(({ url, token }) => {
      const client = this.#clients.get(url) ?? new ControlClient(url, token)
      this.#clients.set(url, client)
      return client
    })
    if (agents.length === 0) throw this.#nobody()
    return agents
  }

  #live(): { readonly url: string; readonly token: string }[] {
    const directory = RuntimeDirectory.find(this.#path)
    const agents = directory?.agents() ?? []
    const token = this.#token ?? (agents.length > 0 ? directory?.token() : undefined) ?? ''
    return agents.map(({ url }) => ({ url, token }))
  }

  #nobody(): ConnectionError {
    return new ConnectionError(
      'ERR_CLUSTER_UNREACHABLE',
      `no cluster is running for runtime directory ${this.#path}; start one with \`praas run APP\` or pass its URL`,
    )
  }
}

/** An agent that ends just now has no processes. */
async function listOrNothing(agent: ControlClient): Promise<ProcessDescription[]> {
  try {
    return await agent.list()
  } catch (error) {
    if (codeOf(error) === 'ERR_CLUSTER_UNREACHABLE') return []
    throw error
  }
}
