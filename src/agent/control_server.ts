/** The agent's HTTP/JSON interface, over a UNIX socket and, when asked to, TCP. */
import { createHash, timingSafeEqual } from 'node:crypto'
import { createServer } from 'node:http'
import type { Socket } from 'node:net'
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { ErrorBody, Health } from '../client/control_client.js'
import { codecNames } from '../codecs.js'
import type { ControlPlane, DeployRequest, ProcessHandle } from '../control.js'
import { codeOf, ConnectionError, messageOf, type ErrorCode } from '../errors.js'
import { maxLeaseWorkers, maxTimeoutMs, maxTokenMs, maxWorkers } from '../limits.js'
import { integer, name, parseOptions } from '../options.js'
import { packageVersion } from '../package.js'
import { openToken, tokenVerbs, type Token, type TokenVerb } from '../token.js'

const processSchema = z.object({
  app: z.string().min(1).optional(),
  workers: integer(1, maxWorkers).optional(),
  nativeWorkers: integer(1, maxWorkers).optional(),
  workerMemoryBytes: integer(2 ** 26, 2 ** 40).optional(),
  leaseWorkers: integer(0, maxLeaseWorkers).optional(),
  concurrency: integer(1, 1024).optional(),
  memoryBytes: integer(2 ** 20, 2 ** 40).optional(),
  poolBytes: integer(2 ** 24, 2 ** 40).optional(),
  publicationBytes: integer(2 ** 16, 2 ** 35).optional(),
  hotMs: integer(-1, 86_400_000).optional(),
  backlog: integer(16, 4096).optional(),
  defaultTimeoutMs: z.number().min(1).max(maxTimeoutMs).optional(),
  graceMs: z.number().min(0).max(60_000).optional(),
  maxContiguousBytes: integer(4096, 2 ** 32 - 1).optional(),
})
const path = z.string().startsWith('/')
const nativeFunctionSchema = z.strictObject({
  library: path.optional(),
  symbol: z.string().min(1).optional(),
  abi: z.enum(['raw', 'c', 'praas']).optional(),
  maxOutputBytes: integer(1, 2 ** 32 - 1).optional(),
  idempotent: z.boolean().optional(),
  input: z.enum(codecNames).optional(),
  output: z.enum(codecNames).optional(),
})
const deploySchema = z.object({
  entry: path.optional(),
  native: z.array(path).optional(),
  functions: z.record(z.string(), nativeFunctionSchema).optional(),
  maxOutputBytes: integer(1, 2 ** 32 - 1).optional(),
  name: name.optional(),
  external: z.array(z.string().min(1)).optional(),
})
const tokenSchema = z.object({
  verbs: z.array(z.enum(tokenVerbs)).min(1),
  ttlMs: z.number().min(1).max(maxTokenMs),
})
const drainSchema = z.object({ timeoutMs: z.number().min(0).max(maxTimeoutMs).default(5_000) })
const time = z.coerce.number().min(0).max(maxTimeoutMs)
const waitSchema = z.object({ timeoutMs: time.default(30_000) })
const removeSchema = z.object({ timeoutMs: time.default(5_000), keep: z.enum(['true', 'false']).default('false') })
const logsSchema = z.object({ offset: z.coerce.number().int().default(0), waitMs: time.max(60_000).default(0) })

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_ARGUMENT_INVALID: 400,
  ERR_NAME_INVALID: 400,
  ERR_TOKEN_INVALID: 401,
  ERR_TOKEN_EXPIRED: 401,
  ERR_NOT_PERMITTED: 403,
  ERR_PROCESS_UNKNOWN: 404,
  ERR_APP_UNKNOWN: 404,
  ERR_PROCESS_BUSY: 409,
  ERR_PROCESS_DRAINING: 409,
  ERR_DEPLOY_FAILED: 422,
  ERR_PROCESS_FAILED: 503,
  ERR_CONNECTION_TIMEOUT: 504,
}

interface ById {
  Params: { readonly id: string }
}

/** Who may ask what: the cluster's token allows everything, that of a process what it says, of that process. */
export interface Authority {
  /** The cluster's. */
  token(): string
  /** What tokens of a process are signed with. */
  findProcessKey(id: string): string | undefined
}

/** What a token of a process needs for a route: one of these verbs. Routes without it are for the cluster's token alone. */
declare module 'fastify' {
  interface FastifyContextConfig {
    verbs?: readonly TokenVerb[]
  }
}
const anyHolder = { config: { verbs: tokenVerbs } }
const administrators = { config: { verbs: ['admin'] } } as const

/** Connections over which no valid token has come yet, and the time for one to come. */
const maxStrangers = 256
const strangerMs = 5_000
const maxHeadBytes = 8192
/** For a request to arrive; how long it may wait for its answer is its own affair. */
const arrivalMs = 30_000
/** Connections of clients that ask for nothing. */
const idleMs = 72_000

/** A server for one address; it is not listening yet. */
export function buildControlServer(control: ControlPlane, authority: Authority): FastifyInstance {
  const clusterToken = authority.token()
  /** Tokens of processes that requests came with. */
  const tokens = new WeakMap<FastifyRequest, Token>()
  const strangers = new Map<Socket, NodeJS.Timeout>()
  const startedMs = Date.now()
  const server = fastify({
    // Idle keep-alive connections of clients must not hold up the end.
    forceCloseConnections: true,
    routerOptions: { maxParamLength: 1024 },
    // Paths that are none come past the routes.
    frameworkErrors: (_error, _request, reply) => {
      void (reply as FastifyReply)
        .code(400)
        // Nobody has looked at a token yet.
        .header('connection', 'close')
        .send(errorBody('ERR_ARGUMENT_INVALID', 'the path of the request cannot be read, or has too long a part'))
    },
    // One name may be several addresses, with a server for each.
    serverFactory: (handler) =>
      createServer({ maxHeaderSize: maxHeadBytes, requestTimeout: arrivalMs, keepAliveTimeout: idleMs }, handler).on(
        'connection',
        meet,
      ),
  })

  server.addHook('onRequest', async (request) => {
    const given = bearerOf(request)
    const token = isEqual(given, clusterToken) ? undefined : openToken(given, findKey)
    forget(request.raw.socket)
    if (token === undefined) return
    checkPermitted(request, token)
    tokens.set(request, token)
  })
  server.setErrorHandler((error, _request, reply) => {
    const code = codeOf(error) ?? 'ERR_INTERNAL'
    // Fastify's own codes are about requests that praas never makes.
    const known = code.startsWith('FST_') ? 'ERR_ARGUMENT_INVALID' : code
    const status = statuses[known as ErrorCode] ?? 500
    // Whoever has no valid token gets no second try on this connection.
    if (status === 401) void reply.header('connection', 'close')
    void reply.code(status).send(errorBody(known, messageOf(error)))
  })
  server.setNotFoundHandler((request, reply) => {
    void reply.code(404).send(errorBody('ERR_ARGUMENT_INVALID', `there is no ${request.method} ${request.url}`))
  })

  server.get('/v1/health', anyHolder, async (): Promise<Health> => ({
    version: packageVersion(),
    pid: process.pid,
    uptimeMs: Date.now() - startedMs,
  }))
  server.get('/v1/processes', anyHolder, async (request) => {
    const only = tokens.get(request)?.process
    const processes = await control.list()
    return { processes: only === undefined ? processes : processes.filter(({ id }) => id === only) }
  })
  server.get<ById>('/v1/processes/:id', anyHolder, find)
  server.put<ById>('/v1/processes/:id', anyHolder, async (request, reply) => {
    const options = parseOptions(processSchema, request.body, 'process')
    // A token of a process is for one that is there.
    if (tokens.has(request)) return find(request, reply)
    const { timeoutMs } = parseOptions(waitSchema, request.query, 'query')
    // Creation goes on when its caller has gone: others may be waiting for the same process.
    return control.ensure(request.params.id, options as object, { timeoutMs })
  })
  server.post<ById>('/v1/processes/:id/tokens', async (request) => ({
    token: await control.token(request.params.id, parseOptions(tokenSchema, request.body, 'token')),
  }))
  server.post<ById>('/v1/processes/:id/drain', administrators, async (request) => {
    await control.drain(request.params.id, parseOptions(drainSchema, request.body, 'drain').timeoutMs)
    return {}
  })
  server.delete<ById>('/v1/processes/:id', administrators, async (request) => {
    const { timeoutMs, keep } = parseOptions(removeSchema, request.query, 'query')
    await control.remove(request.params.id, { timeoutMs, keep: keep === 'true' })
    return {}
  })
  server.get<ById>('/v1/processes/:id/logs', administrators, async (request, reply) => {
    const { offset, waitMs } = parseOptions(logsSchema, request.query, 'query')
    // Nobody reads on when the token has expired.
    const leftMs = (tokens.get(request)?.expiresMs ?? Infinity) - Date.now()
    return control.logs(request.params.id, offset, Math.max(0, Math.min(waitMs, leftMs)), closed(reply))
  })
  server.post('/v1/apps', async (request) => {
    // JSON has no `undefined`: what was not given is absent.
    return control.deploy(parseOptions(deploySchema, request.body, 'deploy') as DeployRequest)
  })
  return server

  /**
   * Who shows no token may not use up the descriptors of the agent, and not keep others from showing theirs: each has a
   * while for it, and when there are too many, the one goes who has had the most.
   */
  function meet(socket: Socket): void {
    // Once what has come is read: this thread may have been busy with something else all the time.
    const late = (): unknown => setImmediate(() => strangers.has(socket) && dismiss(socket))
    strangers.set(socket, setTimeout(late, strangerMs).unref())
    socket.once('close', () => forget(socket))
    if (strangers.size <= maxStrangers) return
    const [oldest] = strangers.keys()
    if (oldest) dismiss(oldest)
  }

  function dismiss(socket: Socket): void {
    forget(socket)
    socket.destroy()
  }

  function forget(socket: Socket): void {
    clearTimeout(strangers.get(socket))
    strangers.delete(socket)
  }

  /** Who asks has not shown yet that it may hear what is wrong with a key, and where that lies. */
  function findKey(id: string): string | undefined {
    try {
      return authority.findProcessKey(id)
    } catch {
      return undefined
    }
  }

  /** Who came with a token of the process connects with that one. */
  async function find(request: FastifyRequest<ById>, reply: FastifyReply): Promise<ProcessHandle> {
    const { timeoutMs } = parseOptions(waitSchema, request.query, 'query')
    const handle = await control.find(request.params.id, { timeoutMs, signal: closed(reply) })
    if (!tokens.has(request)) return handle
    return { ...handle, endpoint: { ...handle.endpoint, token: bearerOf(request) } }
  }
}

function bearerOf(request: FastifyRequest): string {
  return /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
}

/** Compares hashes, which are of one length: neither the time nor an exception tells anything about the secret. */
function isEqual(given: string, secret: string): boolean {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(secret))
}

/** @throws {ConnectionError} `ERR_NOT_PERMITTED` */
function checkPermitted(request: FastifyRequest, token: Token): void {
  const { id } = request.params as Partial<ById['Params']>
  if (id !== undefined && id !== token.process) {
    throw new ConnectionError('ERR_NOT_PERMITTED', `the token is for process ${token.process} and no other`)
  }
  const { verbs } = request.routeOptions.config
  if (verbs?.some((verb) => token.verbs.includes(verb)) === true) return
  throw new ConnectionError(
    'ERR_NOT_PERMITTED',
    verbs === undefined
      ? `a token of a process does not allow ${request.method} ${request.routeOptions.url ?? request.url}; that of the cluster does`
      : `the token does not allow ${verbs.join(' or ')}, which the request needs; it allows ${token.verbs.join(', ')}`,
  )
}

/** Aborts when the caller has gone, or has been answered: unlike the connection, the reply ends with its request. */
function closed(reply: FastifyReply): AbortSignal {
  const controller = new AbortController()
  reply.raw.once('close', () => controller.abort(new Error('the caller has gone')))
  return controller.signal
}

function errorBody(code: string, message: string): ErrorBody {
  return { error: { code, message } }
}
