import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createConnection, type AddressInfo, type Socket } from 'node:net'
import { join, relative } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { Agent, request } from 'undici'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../src/client/connect.js'
import { native } from '../../src/native/binding.js'
import { capabilities } from '../../src/capabilities.js'
import { compileLibrary, rawFunction } from '../support/compile.js'
import { failureOf, fixtureApp, startCluster, type TestCluster } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

let started: TestCluster
let token: string
beforeAll(async () => {
  started = await startCluster({ listen: '127.0.0.1:0' })
  token = started.directory.token()
  await started.cluster.process('one')
})
afterAll(() => started.close())

interface Reply {
  status: number
  body: { error?: { code: string; message: string } } & Record<string, unknown>
}

async function ask(
  method: 'GET' | 'PUT' | 'POST' | 'DELETE',
  path: string,
  body?: unknown,
  as = token,
): Promise<Reply> {
  const socketPath = decodeURIComponent(new URL(started.cluster.url).pathname)
  const dispatcher = new Agent({ connect: { socketPath } })
  const reply = await request(`http://localhost${path}`, {
    method,
    dispatcher,
    headers: { authorization: `Bearer ${as}`, ...(body === undefined ? {} : { 'content-type': 'application/json' }) },
    body: body === undefined ? null : JSON.stringify(body),
  })
  const answer = { status: reply.statusCode, body: (await reply.body.json()) as Reply['body'] }
  await dispatcher.close()
  return answer
}

describe('the control plane over HTTP', () => {
  it('answers who has the token, and nobody else', async () => {
    expect(await ask('GET', '/v1/health')).toMatchObject({ status: 200, body: { pid: process.pid } })
    for (const wrong of ['', 'x', `${token}x`, token.slice(1)]) {
      expect(await ask('GET', '/v1/health', undefined, wrong)).toMatchObject({
        status: 401,
        body: { error: { code: 'ERR_TOKEN_INVALID' } },
      })
    }
    expect(await ask('GET', '/nowhere', undefined, 'x')).toMatchObject({ status: 401 })
  })

  it('lists, creates, drains and removes processes', async () => {
    const created = await ask('PUT', '/v1/processes/two%2Ftwo', { workers: 1, memoryBytes: 2 ** 24 })
    expect(created).toMatchObject({
      status: 200,
      body: { process: { id: 'two/two', state: 'ready', memoryBytes: 2 ** 24 }, endpoint: { host: '127.0.0.1' } },
    })
    // It is there already: the same one.
    const again = await ask('PUT', '/v1/processes/two%2Ftwo', { memoryBytes: 2 ** 25 })
    const { host, port } = created.body['endpoint'] as { host: string; port: number }
    expect(again.body['endpoint']).toMatchObject({ host, port })
    const { processes } = (await ask('GET', '/v1/processes')).body as unknown as { processes: { id: string }[] }
    expect(processes.map(({ id }) => id)).toEqual(['one', 'two/two'])
    expect(await ask('POST', '/v1/processes/two%2Ftwo/drain', { timeoutMs: 1000 })).toMatchObject({ status: 200 })
    expect(await ask('GET', '/v1/processes/two%2Ftwo')).toMatchObject({
      status: 409,
      body: { error: { code: 'ERR_PROCESS_DRAINING' } },
    })
    expect(await ask('DELETE', '/v1/processes/two%2Ftwo')).toMatchObject({ status: 200 })
    expect(await ask('GET', '/v1/processes/two%2Ftwo')).toMatchObject({
      status: 404,
      body: { error: { code: 'ERR_PROCESS_UNKNOWN' } },
    })
  })

  it('creates one process for all who ask at the same time', async () => {
    const replies = await Promise.all(Array.from({ length: 5 }, () => ask('PUT', '/v1/processes/shared', {})))
    const hosts = replies.map(({ body }) => (body['process'] as { pid: number }).pid)
    expect(new Set(hosts).size).toBe(1)
    await ask('DELETE', '/v1/processes/shared')
  })

  it.each([
    ['PUT', '/v1/processes/x', { wrokers: 1 }, 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', '/v1/processes/x', { workers: 0 }, 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', '/v1/processes/x', { workers: 1001 }, 400, 'ERR_ARGUMENT_INVALID'],
    // The application is in TypeScript.
    ['PUT', '/v1/processes/x', { workers: 513 }, 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', '/v1/processes/x', { nativeWorkers: 0 }, 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', '/v1/processes/x', { nativeWorkers: 1001 }, 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', '/v1/processes/x', { workerMemoryBytes: 2 ** 26 - 1 }, 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', '/v1/processes/x', [], 400, 'ERR_ARGUMENT_INVALID'],
    ['PUT', `/v1/processes/${'x'.repeat(256)}`, {}, 400, 'ERR_NAME_INVALID'],
    ['PUT', '/v1/processes/x', { app: 'unheard-of' }, 404, 'ERR_APP_UNKNOWN'],
    ['PUT', '/v1/processes/x', { app: '/nowhere.ts' }, 422, 'ERR_DEPLOY_FAILED'],
    ['PUT', '/v1/processes/x', { app: '/nowhere.so' }, 422, 'ERR_DEPLOY_FAILED'],
    ['PUT', '/v1/processes/x', { app: '/nowhere.json' }, 422, 'ERR_DEPLOY_FAILED'],
    ['POST', '/v1/apps', { entry: 'relative.ts' }, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/apps', {}, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/apps', { native: ['relative.so'] }, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/apps', { native: ['/nowhere.so'] }, 422, 'ERR_DEPLOY_FAILED'],
    ['POST', '/v1/apps', { entry: fixtureApp, functions: { f: {} } }, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/apps', { native: ['/f.so'], functions: { f: { wrong: 1 } } }, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/apps', { native: ['/f.so'], functions: { f: { maxOutputBytes: 0 } } }, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/apps', { native: ['/f.so'], functions: { f: { library: 'f.so' } } }, 400, 'ERR_ARGUMENT_INVALID'],
    ['POST', '/v1/processes/none/drain', {}, 404, 'ERR_PROCESS_UNKNOWN'],
    ['DELETE', '/v1/processes/none', undefined, 404, 'ERR_PROCESS_UNKNOWN'],
    ['GET', '/v1/processes/one/logs?offset=x', undefined, 400, 'ERR_ARGUMENT_INVALID'],
    ['GET', '/v1/processes/%zz', undefined, 400, 'ERR_ARGUMENT_INVALID'],
    ['GET', '/v1/processes?unknown', undefined, 200, undefined],
    ['GET', '/v2', undefined, 404, 'ERR_ARGUMENT_INVALID'],
  ] as const)('%s %s %j gives %i', async (method, path, body, status, code) => {
    const reply = await ask(method, path, body)
    expect(reply.status).toBe(status)
    expect(reply.body.error?.code).toBe(code)
  })

  it('deploys by path', async () => {
    const reply = await ask('POST', '/v1/apps', { entry: fixtureApp, name: 'again' })
    expect(reply).toMatchObject({ status: 200, body: { name: 'again', entry: fixtureApp } })
    expect(reply.body['exports']).toContain('echo')
  })

  it('hands out logs from any place on', async () => {
    const process = await started.cluster.process('one')
    await process.invoke('speaks', Buffer.from('hello'))
    let text = ''
    await expect
      .poll(async () => {
        text = (await ask('GET', '/v1/processes/one/logs')).body['text'] as string
        return text
      })
      .toContain('said hello')
    await expect.poll(async () => (await ask('GET', '/v1/processes/one/logs')).body['text']).toContain('to stderr')
    expect(text).toContain('said hello')
    const read: string[] = []
    for await (const chunk of started.cluster.logs('one')) read.push(chunk)
    expect(read.join('')).toContain('speaks#')
    process.close()
  })
})

describe('connecting', () => {
  it('works over TCP with the token', async () => {
    const url = started.cluster.listenUrl ?? ''
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/)
    await using cluster = await connect(url, { token })
    const process = await cluster.process('one', { create: false })
    expect(await process.invoke('add', { a: 1, b: 2 })).toBe(3)
    expect(await failureOf(connect(url, { token: 'wrong' }))).toMatchObject({ code: 'ERR_TOKEN_INVALID' })
  })

  it('leaves nothing on a connection that many requests share', async () => {
    await using cluster = await connect(started.cluster.url)
    const served = await cluster.process('one', { create: false })
    const warnings: Error[] = []
    const note = (warning: Error): void => void warnings.push(warning)
    process.on('warning', note)
    onTestFinished(() => void process.off('warning', note))
    for (let request = 0; request < 20; request++) await served.describe()
    await setImmediate() // warnings come in a later turn
    expect(warnings).toEqual([])
  })

  const open = async (): Promise<Socket> => {
    const url = new URL(started.cluster.listenUrl ?? '')
    const socket = createConnection(Number(url.port), url.hostname)
    onTestFinished(() => void socket.destroy())
    await once(socket, 'connect')
    return socket
  }
  const healthBy = (shown: string): string =>
    `GET /v1/health HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer ${shown}\r\n\r\n`
  const health = async (socket: Socket, shown = token): Promise<string> => {
    socket.write(healthBy(shown))
    return String((await once(socket, 'data'))[0])
  }

  it('is not kept up by those who have no token', async () => {
    const url = new URL(started.cluster.listenUrl ?? '')
    const known = await open()
    expect(await health(known)).toMatch(/^HTTP\/1.1 200/)
    const first = await open()
    const ended = once(first, 'close')
    for (let stranger = 0; stranger < 256; stranger++) await open()
    await ended
    await using cluster = await connect(url.href, { token })
    expect((await cluster.processes()).map(({ id }) => id)).toContain('one')
    expect(await health(known)).toMatch(/^HTTP\/1.1 200/)
  })

  it('ends those who show none in time, and keeps those who have', async () => {
    const known = await open()
    expect(await health(known)).toMatch(/^HTTP\/1.1 200/)
    const limited = await open()
    const limitedToken = await started.cluster
      .process('one')
      .then((one) => one.token({ verbs: ['invoke'], ttlMs: 60_000 }))
    limited.write(healthBy(limitedToken).replace('GET /v1/health', 'DELETE /v1/processes/one'))
    expect(String((await once(limited, 'data'))[0])).toMatch(/^HTTP\/1.1 403/)

    const silent = await open()
    const slow = await open()
    const dribble = setInterval(() => slow.write('x'), 100)
    onTestFinished(() => clearInterval(dribble))
    slow.on('error', () => undefined).write('GET /v1/health HTTP/1.1\r\nx: ')
    await expect.poll(() => [silent.destroyed, slow.destroyed], { timeout: 25_000 }).toEqual([true, true])
    expect(await health(known)).toMatch(/^HTTP\/1.1 200/)
    expect(await health(limited, limitedToken)).toMatch(/^HTTP\/1.1 200/)
  })

  it('ends a connection with its refusal, and takes no long head', async () => {
    const answer = async (request: string): Promise<string> => {
      const socket = await open()
      const chunks: Buffer[] = []
      socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => undefined)
      socket.write(request)
      await expect.poll(() => socket.destroyed).toBe(true)
      return String(Buffer.concat(chunks))
    }
    expect(await answer(healthBy('wrong'))).toMatch(/^HTTP\/1.1 401 [^]*connection: close/i)
    const padded = (bytes: number): string => healthBy('wrong').replace('Host', `x: ${'x'.repeat(bytes)}\r\nHost`)
    expect(await answer(padded(7_800))).toMatch(/^HTTP\/1.1 401 /)
    expect(await answer(padded(8_192))).toMatch(/^HTTP\/1.1 431 /)
    // Such paths come past the routes, and whoever looks at tokens there.
    for (const part of ['%zz', 'x'.repeat(1_025)]) {
      const path = `/v1/processes/${part}`
      expect(await answer(healthBy('wrong').replace('/v1/health', path))).toMatch(
        /^HTTP\/1.1 400 [^]*connection: close[^]*the path of the request cannot be read, or has too long a part/i,
      )
    }
  })

  it('takes a token that came while the agent was busy', async () => {
    const socket = await open()
    // The server has it by the answer to another, and has read nothing of it yet.
    expect(await health(await open())).toMatch(/^HTTP\/1.1 200/)
    const answered = health(socket)
    const end = performance.now() + 6_000
    while (performance.now() < end);
    expect(await answered).toMatch(/^HTTP\/1.1 200/)
  })

  it('works with the URL of a control socket, whose folder has the token', async () => {
    await using cluster = await connect(started.cluster.url)
    expect((await cluster.processes()).map(({ id }) => id)).toContain('one')
  })

  it('is refused by processes without their own token', async () => {
    const { endpoint } = (await ask('GET', '/v1/processes/one')).body as unknown as {
      endpoint: { host: string; port: number; token: string }
    }
    const options = {
      transport: 'tcp',
      timeoutMs: 5_000,
      windowBytes: 2 ** 24,
      checksum: false,
      spinUs: 0,
      process: 'one',
    } as const
    const connection = await native().connect({ ...options, ...endpoint })
    connection.close()
    for (const wrong of [token, 'x', `${endpoint.token}x`]) {
      expect(await failureOf(native().connect({ ...options, ...endpoint, token: wrong }))).toMatchObject({
        code: 'ERR_TOKEN_INVALID',
      })
    }
    expect(await failureOf(native().connect({ ...options, ...endpoint, process: 'other' }))).toMatchObject({
      code: 'ERR_PROCESS_UNKNOWN',
    })
  })

  it('shows the token of its user over the network to who is known to be of them only', async () => {
    const seen: (string | undefined)[] = []
    const stranger = createServer((asked, answer) => {
      seen.push(asked.headers.authorization)
      answer.writeHead(500).end()
    }).listen(0, '127.0.0.1')
    onTestFinished(() => void stranger.close())
    await once(stranger, 'listening')
    const { port } = stranger.address() as AddressInfo
    const runtimeDir = started.directory.path
    await failureOf(connect(`http://127.0.0.1:${port}`, { runtimeDir }))
    expect(seen.length).toBeGreaterThan(0)
    expect(seen.filter((shown) => shown?.includes(token) === true)).toEqual([])
    const own = await connect(started.cluster.listenUrl, { runtimeDir })
    await own.close()
  })

  it('shows the token of a runtime directory to the sockets in it only, however they are written', async () => {
    const token = started.directory.token()
    const seen: (string | undefined)[] = []
    const path = join(temporaryFolder(), 'sock')
    const stranger = createServer((asked, answer) => {
      seen.push(asked.headers.authorization)
      answer.writeHead(500).end()
    }).listen(path)
    onTestFinished(() => void stranger.close())
    await once(stranger, 'listening')
    const own = started.cluster.url.slice('praas+unix:'.length)
    for (const disguise of ['#', '?']) await failureOf(connect(`praas+unix:${path}${disguise}/../../../${own}`))
    expect(seen).toHaveLength(2)
    expect(seen.filter((shown) => shown?.includes(token) === true)).toEqual([])
    const written = `praas+unix:${own.replace('/agents/', '/agents/../agents%2F./')}`
    await (await connect(written)).close()
  })

  it('says when nobody is there', async () => {
    expect(await failureOf(connect('http://127.0.0.1:9'))).toMatchObject({ code: 'ERR_CLUSTER_UNREACHABLE' })
    expect(await failureOf(connect('praas+unix:/nowhere/agents/x/sock'))).toMatchObject({
      code: 'ERR_CLUSTER_UNREACHABLE',
    })
    expect(await failureOf(connect(undefined, { runtimeDir: temporaryFolder() }))).toMatchObject({
      code: 'ERR_CLUSTER_UNREACHABLE',
    })
    expect(await failureOf(connect('ftp://x'))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(await failureOf(connect('no url'))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(await failureOf(connect(undefined, { tokn: 'x' } as never))).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
  })

  it('ends when it is told to', async () => {
    const cluster = await connect(started.cluster.url)
    await cluster.close()
    await cluster.close()
    expect(await failureOf(cluster.processes())).toMatchObject({ code: 'ERR_CLUSTER_CLOSED' })
    expect(await failureOf(cluster.process('one'))).toMatchObject({ code: 'ERR_CLUSTER_CLOSED' })
    expect(await failureOf(connect(started.cluster.url, { signal: AbortSignal.abort(new Error('no')) }))).toMatchObject(
      { message: 'no' },
    )
  })
})

it('applications are deployed under names of their own', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'other.ts'), 'export const greet = (): Uint8Array => Buffer.from("other")')
  const app = await started.cluster.deploy(join(folder, 'other.ts'))
  expect(app).toMatchObject({ name: 'other', exports: ['greet'] })
  const process = await started.cluster.process('greeter', { app: 'other' })
  expect(Buffer.from(await process.invoke('greet')).toString()).toBe('other')
  await process.stop()
})

it('libraries are deployed from where the client is', async () => {
  const folder = temporaryFolder()
  const library = join(folder, 'libfns.so')
  compileLibrary(library, rawFunction('fft') + rawFunction('mean'))
  const functions = { transform: { symbol: 'fft', maxOutput: '4 MiB', codec: 'Float64Array' } } as const
  const app = await started.cluster.deploy({ native: relative(process.cwd(), library), functions })
  expect(app).toEqual({
    name: 'libfns',
    entry: library,
    hash: expect.stringMatching(/^[0-9a-f]{16}$/) as string,
    language: 'native',
    exports: ['transform'],
    bundleBytes: 0,
    native: [{ name: 'transform', library, symbol: 'fft', abi: 'raw' }],
  })
  await using remote = await connect(started.cluster.url)
  expect(await remote.deploy(library, { name: 'all' })).toMatchObject({ name: 'all', exports: ['fft', 'mean'] })
  expect(await remote.deploy(fixtureApp, { native: [library], name: 'both' })).toMatchObject({ language: 'mixed' })
  expect(await failureOf(remote.deploy(library, { functions: { ftt: {} } }))).toMatchObject({
    code: 'ERR_DEPLOY_FAILED',
    message: expect.stringContaining('libfns.so has fft, mean') as string,
  })
  // Results of 4 MiB do not fit into what this process takes.
  expect(await failureOf(started.cluster.process('small', { app: 'libfns', maxContiguous: '1 MiB' }))).toMatchObject({
    code: 'ERR_ARGUMENT_INVALID',
    message: expect.stringContaining('function transform has maxOutput 4 MiB') as string,
  })
})

it('capabilities name the transports', () => {
  expect(capabilities().transports).toEqual(expect.arrayContaining(['shm', 'tcp']))
})
