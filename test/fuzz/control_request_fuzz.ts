/**
 * Any bytes as a request to the control server: the first chooses method and token, a line has the path
 * below /v1/, the rest is the body.
 */
import assert from 'node:assert/strict'
import { buildControlServer } from '../../src/agent/control_server.js'
import type { ControlPlane, DeployRequest, ProcessOptions } from '../../src/control.js'
import { errorCodes, ProcessError, type ErrorCode } from '../../src/errors.js'
import { maxTimeoutMs } from '../../src/limits.js'
import { mintToken } from '../../src/token.js'

const methods = ['GET', 'PUT', 'POST', 'DELETE'] as const
const key = Buffer.alloc(32, 'k').toString('base64url')
const clusterToken = 'cluster'
const guestToken = mintToken(key, { process: 'grid', verbs: ['invoke'], expiresMs: 4e12, endsConnections: false })

/** What was asked of it with the present request. */
let asked: string[] = []

/** Checks what comes through; answers nothing that would matter. */
const control: ControlPlane = {
  url: '',
  list: async () => {
    asked.push('list')
    return []
  },
  find: async (id, { timeoutMs }) => {
    asked.push('find')
    checkTime(timeoutMs)
    throw new ProcessError('ERR_PROCESS_UNKNOWN', `there is no process ${id}`)
  },
  ensure: async (id, options, { timeoutMs }) => {
    asked.push('ensure')
    checkTime(timeoutMs)
    checkOptions(options)
    throw new ProcessError('ERR_PROCESS_FAILED', `process ${id} failed`)
  },
  token: async (_id, { verbs, ttlMs }) => {
    asked.push('token')
    assert.ok(verbs.length > 0 && ttlMs >= 1)
    return ''
  },
  drain: async (_id, timeoutMs) => {
    asked.push('drain')
    checkTime(timeoutMs)
  },
  remove: async (_id, { timeoutMs, keep }) => {
    asked.push('remove')
    checkTime(timeoutMs)
    assert.equal(typeof keep, 'boolean')
  },
  deploy: async (request) => {
    asked.push('deploy')
    checkDeploy(request)
    return { name: '', entry: '', hash: '', language: 'native', exports: [], bundleBytes: 0, native: [] }
  },
  logs: async (_id, offset, waitMs) => {
    asked.push('logs')
    checkTime(waitMs)
    assert.ok(Number.isSafeInteger(offset))
    return { text: '', next: 0 }
  },
  close: async () => undefined,
}
const server = buildControlServer(control, {
  token: () => clusterToken,
  findProcessKey: (id) => (id === 'grid' ? key : undefined),
})

export async function fuzz(data: Uint8Array): Promise<void> {
  const [choice = 0, ...rest] = data
  const text = Buffer.from(rest)
  const end = text.indexOf('\n')
  // Whatever could be no line of a request, Node's own parser keeps away.
  const path = `/v1/${text.toString('latin1', 0, end < 0 ? text.byteLength : end).replaceAll(/[^!-~]/g, '')}`
  const isGuest = (choice & 4) !== 0
  asked = []
  const reply = await server.inject({
    method: methods[choice & 3] ?? 'GET',
    url: path,
    headers: {
      authorization: `Bearer ${isGuest ? guestToken : clusterToken}`,
      ...((choice & 8) === 0 ? { 'content-type': 'application/json' } : {}),
    },
    ...(end < 0 ? {} : { payload: text.subarray(end + 1) }),
  })
  assert.ok(asked.length <= 1)
  if (isGuest) assert.ok(asked.every((what) => ['list', 'find'].includes(what)))
  const answer = JSON.parse(reply.body) as { error?: { code: string; message: string } }
  if (reply.statusCode === 200) return
  // A server has failed, or a process of it.
  assert.ok(reply.statusCode < 500 || answer.error?.code === 'ERR_PROCESS_FAILED', reply.body)
  assert.ok(errorCodes.has(answer.error?.code as ErrorCode), reply.body)
}

function checkTime(timeMs: number): void {
  assert.ok(timeMs >= 0 && timeMs <= maxTimeoutMs)
}

function checkOptions({ app, ...numbers }: ProcessOptions): void {
  assert.ok(app === undefined || app !== '')
  assert.ok(Object.values(numbers).every((value) => Number.isFinite(value)))
}

function checkDeploy({ entry, native = [], functions = {} }: DeployRequest): void {
  const libraries = Object.values(functions).flatMap(({ library }) => library ?? [])
  assert.ok([...(entry === undefined ? [] : [entry]), ...native, ...libraries].every((path) => path.startsWith('/')))
}
