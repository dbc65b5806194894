/** What is left of a connection when the other side ends. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { afterEach, describe, expect, it } from 'vitest'
import type { NativeConnection } from '../../src/native/binding.js'
import { addonPath, bytes, fn, parsed, rejection, TestHost, text, thrown } from './support.js'

const long = 60_000
const hosts: TestHost[] = []
afterEach(async () => {
  for (const host of hosts.splice(0)) await host.stop()
})
async function start(settings: Parameters<typeof TestHost.start>[0] = {}): Promise<TestHost> {
  const host = await TestHost.start(settings)
  hosts.push(host)
  return host
}
const invoke = (connection: NativeConnection, name: string, input = ''): Promise<Uint8Array> =>
  connection.invoke(fn(connection, name), bytes(input), undefined, 0, long)

describe.each(['shm', 'tcp'] as const)('over %s', (transport) => {
  it('calls of a killed worker fail, others go on', async () => {
    const host = await start({ workers: 2, hotMs: 2 })
    const connection = await host.connect(transport)
    const failed = await rejection(invoke(connection, 'crash'))
    expect(failed).toMatchObject({ code: 'ERR_WORKER_CRASHED' })
    expect(parsed(bytes(failed.message))).toHaveProperty('signal')
    expect(text(await invoke(connection, 'echo', 'go on'))).toBe('go on')
    expect(thrown(() => connection.invokeSync(fn(connection, 'crash'), bytes(''), undefined, 0, long))).toMatchObject({
      code: 'ERR_WORKER_CRASHED',
    })
  })

  it('everything in flight fails when the host is killed', async () => {
    const host = await start({ workers: 1, concurrency: 4 })
    const connection = await host.connect(transport)
    const lost = new Promise<Error & { code?: string }>((resolve) => connection.onLost(resolve))
    const memory = connection.allocate(4096)
    const timer = fn(connection, 'timer')
    const calls = [1, 2, 3].map(() => connection.invoke(timer, bytes('100000'), memory, 0, long))
    const errors = Promise.all(calls.map((call) => rejection(call)))
    await host.kill()
    for (const error of await errors) expect(error.code).toMatch(/^ERR_(HOST|CONNECTION)_LOST$/)
    expect((await lost).code).toMatch(/^ERR_(HOST|CONNECTION)_LOST$/)
    expect(connection.ended[0]).toBe(1)
    // The mapping stays until close().
    memory[0] = 1
    expect(memory[0]).toBe(1)
    expect(thrown(() => connection.invokeSync(timer, bytes(''), undefined, 0, long)).code).toMatch(/_LOST$/)
    connection.close()
    expect(memory.length).toBe(0)
  })

  it('a synchronous call fails when the host is killed', async () => {
    const host = await start()
    const connection = await host.connect(transport)
    const timer = fn(connection, 'timer')
    // From outside: this thread is inside the call.
    const killer = spawn('sh', ['-c', `sleep 0.3; kill -9 ${host.pid}`])
    expect(thrown(() => connection.invokeSync(timer, bytes('100000'), undefined, 0, long)).code).toMatch(/_LOST$/)
    await once(killer, 'exit')
    const lost = new Promise<Error & { code?: string }>((resolve) => connection.onLost(resolve))
    expect((await lost).code).toMatch(/_LOST$/)
  })

  it('a loss is told without a call in flight', async () => {
    const host = await start()
    const connection = await host.connect(transport)
    const lost = new Promise<Error & { code?: string }>((resolve) => connection.onLost(resolve))
    await invoke(connection, 'echo')
    await host.kill()
    expect((await lost).code).toMatch(/_LOST$/)
    expect(await rejection((async () => invoke(connection, 'echo'))())).toHaveProperty('code')
  })

  it('a client that is done ends by itself, also with a connection left open', async () => {
    const host = await start({ hotMs: 2 })
    const client = spawn(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        `import { createRequire } from 'node:module'
         const native = createRequire('file:///')(${JSON.stringify(addonPath)})
         const connection = await native.connect({ host: '127.0.0.1', port: ${host.port}, process: '${host.name}',
           token: '${host.token}', transport: '${transport}', timeoutMs: 20000, windowBytes: 1 << 26, checksum: false, spinUs: 50 })
         connection.onLost(() => {})
         globalThis.memory = connection.allocate(10000)
         const { index } = await connection.resolve('echo', 10000)
         const result = await connection.invoke(index, new TextEncoder().encode('bye'), undefined, 0, 10000)
         process.stdout.write(new TextDecoder().decode(result))`,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    let output = ''
    client.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    const [code] = (await once(client, 'exit')) as [number]
    expect([code, output]).toEqual([0, 'bye'])
  })

  it('process.exit in the middle of calls is clean', async () => {
    const host = await start({ concurrency: 4 })
    const client = spawn(
      process.execPath,
      [
        '--input-type=module',
        '--eval',
        `import { createRequire } from 'node:module'
         const native = createRequire('file:///')(${JSON.stringify(addonPath)})
         const connection = await native.connect({ host: '127.0.0.1', port: ${host.port}, process: '${host.name}',
           token: '${host.token}', transport: '${transport}', timeoutMs: 20000, windowBytes: 1 << 26, checksum: false, spinUs: 50 })
         const { index } = connection.resolveSync('timer', 10000)
         connection.invoke(index, new TextEncoder().encode('100000'), connection.allocate(100), 0, 100000).catch(() => {})
         setImmediate(() => process.exit(7))`,
      ],
      { stdio: ['ignore', 'inherit', 'inherit'] },
    )
    const [code, signal] = (await once(client, 'exit')) as [number, string]
    expect([code, signal]).toEqual([7, null])
  })
})

describe('workers', () => {
  it('serve bursts and then sleep without using the processor', async () => {
    const host = await start({ workers: 1, hotMs: 0 })
    const connection = await host.connect()
    const echo = fn(connection, 'echo')
    for (let round = 0; round < 20; round += 1) {
      const calls = Array.from({ length: 50 }, (_, i) => connection.invoke(echo, bytes(String(i)), undefined, 0, long))
      expect((await Promise.all(calls)).map(text)).toEqual(calls.map((_, i) => String(i)))
    }
  })

  it('report that they cannot load', async () => {
    const host = TestHost.start({ app: { loadFails: true } })
    await expect(host).rejects.toThrow('as asked')
  })

  it('finish what runs when they are drained, and exit', async () => {
    const host = await start({ workers: 2, concurrency: 4, hotMs: 2 })
    const connection = await host.connect()
    const timer = fn(connection, 'timer')
    const running = [1, 2, 3].map(() => connection.invoke(timer, bytes('100'), undefined, 0, long))
    // Answered by the same workers, so those before it have been started.
    await invoke(connection, 'echoLater')
    host.send('drain', { timeoutMs: 30_000 })
    expect((await Promise.all(running)).map(text)).toEqual(['done', 'done', 'done'])
    await host.line('drained')
  })

  it('serve the calls that they wait for themselves', async () => {
    const host = await start({ workers: 1, concurrency: 1, hotMs: 0 })
    const connection = await host.connect()
    expect(text(await invoke(connection, 'nested', 'nested echoLater alone'))).toBe('alone')
    expect(await rejection(invoke(connection, 'nestedSync', 'echo alone'))).toHaveProperty('message')
  })

  it('take calls again after being full', async () => {
    const host = await start({ workers: 1, concurrency: 2, hotMs: 0 })
    const connection = await host.connect()
    const timer = fn(connection, 'timer')
    const calls = Array.from({ length: 12 }, () => connection.invoke(timer, bytes('5'), undefined, 0, long))
    expect((await Promise.all(calls)).map(text)).toEqual(Array(12).fill('done'))
  })
})
