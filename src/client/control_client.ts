/** The control plane of one agent, over HTTP. */
import { resolve } from 'node:path'
import type { Agent as UndiciAgent } from 'undici'
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
import { ArgumentError, codeOf, ConnectionError, errorFromCode, messageOf } from '../errors.js'

/** How errors travel in replies. */
export interface ErrorBody {
  readonly error: { readonly code: string; readonly message: string }
}

export interface Health {
  readonly version: string
  readonly pid: number
  readonly uptimeMs: number
}

interface RequestOptions {
  readonly body?: unknown
  readonly timeoutMs?: number | undefined
  readonly signal?: AbortSignal | undefined
}

const requestMs = 30_000
/** What the agent needs on top of the time it was given to answer that this time is over. */
const answerMs = 5_000

export class ControlClient implements ControlPlane {
  readonly url: string
  readonly #origin: string
  readonly #socketPath: string | undefined
  readonly #hostname: string | undefined
  readonly #token: string
  #dispatcher: UndiciAgent | undefined
  #closed = false

  /** @param url  `praas+unix:PATH`, `http://HOST:PORT` or `https://HOST:PORT` */
  constructor(url: string, token: string) {
    this.url = url
    this.#token = token
    const parsed = parseUrl(url)
    this.#socketPath = parsed.socketPath
    this.#hostname = parsed.hostname
    this.#origin = parsed.origin
  }

  async health(timeoutMs: number = requestMs): Promise<Health> {
    return this.#request('GET', '/v1/health', { timeoutMs })
  }

  async list(): Promise<ProcessDescription[]> {
    return (await this.#request<{ processes: ProcessDescription[] }>('GET', '/v1/processes')).processes
  }

  async find(id: string, { timeoutMs, signal }: WaitOptions): Promise<ProcessHandle> {
    const path = `/v1/processes/${encodeURIComponent(id)}?timeoutMs=${Math.ceil(timeoutMs)}`
    return this.#reachable(await this.#request('GET', path, { timeoutMs: timeoutMs + answerMs, signal }))
  }

  async ensure(id: string, options: ProcessOptions, { timeoutMs, signal }: WaitOptions): Promise<ProcessHandle> {
    const path = `/v1/processes/${encodeURIComponent(id)}?timeoutMs=${Math.ceil(timeoutMs)}`
    const body = options
    return this.#reachable(await this.#request('PUT', path, { body, timeoutMs: timeoutMs + answerMs, signal }))
  }

  async token(id: string, request: TokenRequest): Promise<string> {
    const path = `/v1/processes/${encodeURIComponent(id)}/tokens`
    return (await this.#request<{ token: string }>('POST', path, { body: request })).token
  }

  async drain(id: string, timeoutMs: number): Promise<void> {
    const path = `/v1/processes/${encodeURIComponent(id)}/drain`
    await this.#request('POST', path, { body: { timeoutMs }, timeoutMs: timeoutMs + answerMs })
  }

  async remove(id: string, { timeoutMs, keep }: { timeoutMs: number; keep: boolean }): Promise<void> {
    const path = `/v1/processes/${encodeURIComponent(id)}?timeoutMs=${Math.ceil(timeoutMs)}&keep=${keep}`
    await this.#request('DELETE', path, { timeoutMs: timeoutMs + 2 * answerMs })
  }

  async deploy(request: DeployRequest): Promise<AppDescription> {
    return this.#request('POST', '/v1/apps', { body: request, timeoutMs: 120_000 })
  }

  async logs(id: string, offset: number, waitMs: number, signal?: AbortSignal): Promise<LogChunk> {
    const path = `/v1/processes/${encodeURIComponent(id)}/logs?offset=${offset}&waitMs=${waitMs}`
    return this.#request('GET', path, { timeoutMs: waitMs + requestMs, signal })
  }

  async close(): Promise<void> {
    this.#closed = true
    const dispatcher = this.#dispatcher
    this.#dispatcher = undefined
    await dispatcher?.destroy()
  }

  /** A host that listens on all addresses is reached where its agent is. */
  #reachable(handle: ProcessHandle): ProcessHandle {
    const { host } = handle.endpoint
    if (host !== '0.0.0.0' && host !== '::') return handle
    return { ...handle, endpoint: { ...handle.endpoint, host: this.#hostname ?? '127.0.0.1' } }
  }

  async #request<Reply>(
    method: 'GET' | 'PUT' | 'POST' | 'DELETE',
    path: string,
    options: RequestOptions = {},
  ): Promise<Reply> {
    const { body, timeoutMs = requestMs, signal } = options
    const { request } = await import('undici')
    this.#throwIfClosed()
    const timeout = AbortSignal.timeout(Math.ceil(timeoutMs))
    let status: number
    let text: string
    try {
      const reply = await request(`${this.#origin}${path}`, {
        method,
        dispatcher: (this.#dispatcher ??= await this.#makeDispatcher()),
        signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
        headers: {
          authorization: `Bearer ${this.#token}`,
          ...(body === undefined ? {} : { 'content-type': 'application/json' }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        headersTimeout: 0,
        bodyTimeout: 0,
      })
      status = reply.statusCode
      text = await reply.body.text()
    } catch (error) {
      signal?.throwIfAborted()
      this.#throwIfClosed(error)
      throw this.#unreachable(error, timeout.aborted ? `no answer within ${Math.round(timeoutMs)} ms` : reasonOf(error))
    }
    const reply = parseReply(text)
    if (status < 300) return reply as Reply
    const { code, message } = (reply as Partial<ErrorBody> | undefined)?.error ?? {}
    if (code !== undefined) throw errorFromCode(code, message ?? code)
    throw this.#unreachable(undefined, `it answers with HTTP status ${status} and not as praas does`)
  }

  #throwIfClosed(cause?: unknown): void {
    if (this.#closed) throw new ConnectionError('ERR_CLUSTER_CLOSED', 'the cluster object was closed', { cause })
  }

  async #makeDispatcher(): Promise<UndiciAgent> {
    const { Agent } = await import('undici')
    return new Agent({
      connect: this.#socketPath === undefined ? { timeout: requestMs } : { socketPath: this.#socketPath },
    })
  }

  #unreachable(cause: unknown, why: string): ConnectionError {
    return new ConnectionError(
      'ERR_CLUSTER_UNREACHABLE',
      `cannot reach the cluster at ${this.url}: ${why}; is it running (\`praas run\`), and is the URL the one it printed?`,
      { cause },
    )
  }
}

/** Node closes connections that it has no file descriptors for without a word, as if it ended. */
function reasonOf(error: unknown): string {
  const closed = ['ECONNRESET', 'EPIPE', 'UND_ERR_SOCKET'].includes(codeOf(error) ?? '')
  const message = messageOf(error)
  return closed ? `it closed the connection (${message}), or has no file descriptors left (\`ulimit -n\`)` : message
}

export function parseUrl(url: string): { origin: string; socketPath?: string; hostname?: string } {
  let parsed: URL
  try {
    parsed = new URL(url)
  } catch {
    throw new ArgumentError(
      `url is ${JSON.stringify(url)}; expected praas+unix:PATH, http://HOST:PORT or https://HOST:PORT`,
    )
  }
  if (parsed.protocol === 'praas+unix:') {
    return { origin: 'http://localhost', socketPath: resolve(decodeURIComponent(parsed.pathname)) }
  }
  if (parsed.protocol !== 'http:' && parsed.protocol !== 'https:') {
    throw new ArgumentError(`url ${url}: expected praas+unix:PATH, http://HOST:PORT or https://HOST:PORT`)
  }
  return { origin: parsed.origin, hostname: parsed.hostname.replace(/^\[|\]$/g, '') }
}

/** `praas+unix:` URL of a socket. */
export function unixUrl(socketPath: string): string {
  return `praas+unix:${socketPath.split('/').map(encodeURIComponent).join('/')}`
}

function parseReply(text: string): unknown {
  if (text === '') return undefined
  try {
    return JSON.parse(text) as unknown
  } catch {
    return undefined // not from praas; the status says so
  }
}
