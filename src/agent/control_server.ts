/** The agent's HTTP/JSON interface, over a UNIX socket and, when asked to, TCP. */
import { createHash, timingSafeEqual } from 'node:crypto'
import fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { z } from 'zod'
import type { ErrorBody, Health } from '../client/control_client.js'
import { codecNames } from '../codecs.js'
import type { ControlPlane, DeployRequest } from '../control.js'
import { codeOf, messageOf, type ErrorCode } from '../errors.js'
import { maxLeaseWorkers, maxTimeoutMs, maxWorkers } from '../limits.js'
import { integer, name, parseOptions } from '../options.js'
import { packageVersion } from '../package.js'

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
const drainSchema = z.object({ timeoutMs: z.number().min(0).max(maxTimeoutMs).default(5_000) })
const time = z.coerce.number().min(0).max(maxTimeoutMs)
const waitSchema = z.object({ timeoutMs: time.default(30_000) })
const removeSchema = z.object({ timeoutMs: time.default(5_000), keep: z.enum(['true', 'false']).default('false') })
const logsSchema = z.object({ offset: z.coerce.number().int().default(0), waitMs: time.max(60_000).default(0) })

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_ARGUMENT_INVALID: 400,
  ERR_NAME_INVALID: 400,
  ERR_TOKEN_INVALID: 401,
  ERR_PROCESS_UNKNOWN: 404,
  ERR_APP_UNKNOWN: 404,
  ERR_PROCESS_BUSY: 409,
  ERR_PROCESS_DRAINING: 409,
  ERR_DEPLOY_FAILED: 422,
  ERR_PROCESS_FAILED: 503,
}

interface ById {
  Params: { readonly id: string }
}

/** A server for one address; it is not listening yet. */
export function buildControlServer(control: ControlPlane, token: string): FastifyInstance {
  const startedMs = Date.now()
  // Idle keep-alive connections of clients must not hold up the end.
  const server = fastify({ forceCloseConnections: true, routerOptions: { maxParamLength: 1024 } })

  server.addHook('onRequest', async (request, reply) => {
    if (!isAuthorized(request, token)) {
      await reply
        .code(401)
        .send(
          errorBody('ERR_TOKEN_INVALID', 'the token is not that of this cluster; set PRAAS_TOKEN or run as its user'),
        )
    }
  })
  server.setErrorHandler((error, _request, reply) => {
    const code = codeOf(error) ?? 'ERR_INTERNAL'
    // Fastify's own codes are about requests that praas never makes.
    const known = code.startsWith('FST_') ? 'ERR_ARGUMENT_INVALID' : code
    void reply.code(statuses[known as ErrorCode] ?? 500).send(errorBody(known, messageOf(error)))
  })
  server.setNotFoundHandler((request, reply) => {
    void reply.code(404).send(errorBody('ERR_ARGUMENT_INVALID', `there is no ${request.method} ${request.url}`))
  })

  server.get('/v1/health', async (): Promise<Health> => ({
    version: packageVersion(),
    pid: process.pid,
    uptimeMs: Date.now() - startedMs,
  }))
  server.get('/v1/processes', async () => ({ processes: await control.list() }))
  server.get<ById>('/v1/processes/:id', async (request) => {
    const { timeoutMs } = parseOptions(waitSchema, request.query, 'query')
    return control.find(request.params.id, { timeoutMs, signal: closed(request) })
  })
  server.put<ById>('/v1/processes/:id', async (request) => {
    const { timeoutMs } = parseOptions(waitSchema, request.query, 'query')
    const options = parseOptions(processSchema, request.body, 'process')
    // Creation goes on when its caller has gone: others may be waiting for the same process.
    return control.ensure(request.params.id, options as object, { timeoutMs })
  })
  server.post<ById>('/v1/processes/:id/drain', async (request) => {
    await control.drain(request.params.id, parseOptions(drainSchema, request.body, 'drain').timeoutMs)
    return {}
  })
  server.delete<ById>('/v1/processes/:id', async (request) => {
    const { timeoutMs, keep } = parseOptions(removeSchema, request.query, 'query')
    await control.remove(request.params.id, { timeoutMs, keep: keep === 'true' })
    return {}
  })
  server.get<ById>('/v1/processes/:id/logs', async (request) => {
    const { offset, waitMs } = parseOptions(logsSchema, request.query, 'query')
    return control.logs(request.params.id, offset, waitMs, closed(request))
  })
  server.post('/v1/apps', async (request) => {
    // JSON has no `undefined`: what was not given is absent.
    return control.deploy(parseOptions(deploySchema, request.body, 'deploy') as DeployRequest)
  })
  return server
}

/** Compares hashes, which are of one length: neither the time nor an exception tells anything about the token. */
function isAuthorized(request: FastifyRequest, token: string): boolean {
  const given = /^Bearer (.*)$/.exec(request.headers.authorization ?? '')?.[1] ?? ''
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest()
  return timingSafeEqual(digest(given), digest(token))
}

/** Aborts when the caller has gone. */
function closed(request: FastifyRequest): AbortSignal {
  const controller = new AbortController()
  request.raw.socket.once('close', () => controller.abort(new Error('the caller has gone')))
  return controller.signal
}

function errorBody(code: string, message: string): ErrorBody {
  return { error: { code, message } }
}
