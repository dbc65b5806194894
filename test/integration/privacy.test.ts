/** What praas keeps is for its user alone, names that somebody else has taken are not used, and nobody hears of it far away. */
import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { Socket } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it, onTestFinished } from 'vitest'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { connect } from '../../src/client/connect.js'
import { clusterForTest, failureOf, fixtureApp } from '../support/cluster.js'
import { descendantsOf } from '../support/processes.js'
import { temporaryFolder } from '../support/temporary.js'

const umask = process.umask()
afterEach(() => process.umask(umask))

function entriesBelow(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name)
    return lstatSync(path).isDirectory() ? [path, ...entriesBelow(path)] : [path]
  })
}

it('files and sockets are 0600 and folders 0700, whatever the umask', async () => {
  process.umask(0)
  const { cluster, directory } = await clusterForTest()
  const served = await cluster.process('one', { workers: 2 })
  await served.invoke('speaks', Buffer.from('x'))
  await using lease = await served.lease()
  await lease.invoke('echo', new Uint8Array(8))
  const entries = entriesBelow(directory.path)
  const kinds = entries.map((path) => {
    const found = lstatSync(path)
    expect(found.uid, path).toBe(process.getuid?.())
    expect((found.mode & 0o7777).toString(8), path).toBe(found.isDirectory() ? '700' : '600')
    return found.isSocket() ? 'socket' : found.isDirectory() ? 'folder' : 'file'
  })
  // The agent's socket and the host's; token, key, log, registries and the application.
  expect(kinds.filter((kind) => kind === 'socket')).toHaveLength(2)
  expect(kinds.filter((kind) => kind === 'file').length).toBeGreaterThanOrEqual(6)
  const { segment } = directory.processPaths('one')
  expect((lstatSync(`/dev/shm${segment}`).mode & 0o7777).toString(8)).toBe('600')
})

describe('a link in the place of', () => {
  const victim = (): string => {
    const path = join(temporaryFolder(), 'victim')
    writeFileSync(path, 'precious', { mode: 0o600 })
    onTestFinished(() => expect(readFileSync(path, 'utf8')).toBe('precious'))
    return path
  }

  it.each(['log', 'objects', 'tokenKey'] as const)('the %s of a process is refused', async (file) => {
    const { cluster, directory } = await clusterForTest()
    const path = directory.createProcessFolder('one')[file]
    symlinkSync(victim(), path)
    const failure = await failureOf(cluster.process('one'))
    expect(failure.message).toContain(`${path} is a symbolic link`)
    expect(failure.code).toBe(file === 'tokenKey' ? 'ERR_RUNTIME_DIRECTORY' : 'ERR_PROCESS_FAILED')
    rmSync(path, { force: true })
    expect(await (await cluster.process('one')).invoke('add', { a: 1, b: 2 })).toBe(3)
  })

  it('the folder of a process is refused', async () => {
    const { cluster, directory } = await clusterForTest()
    const { folder } = directory.processPaths('one')
    const elsewhere = temporaryFolder()
    symlinkSync(elsewhere, folder)
    expect(await failureOf(cluster.process('one'))).toMatchObject({
      code: 'ERR_RUNTIME_DIRECTORY',
      message: expect.stringContaining(`${folder} is a symbolic link`) as string,
    })
    expect(readdirSync(elsewhere)).toEqual([])
    rmSync(folder)
  })

  it('the segment is refused', async () => {
    const { cluster, directory } = await clusterForTest()
    const path = `/dev/shm${directory.processPaths('one').segment}`
    symlinkSync(victim(), path)
    expect(await failureOf(cluster.process('one'))).toMatchObject({
      code: 'ERR_SEGMENT_INVALID',
      message: expect.stringContaining('is a symbolic link') as string,
    })
    expect(lstatSync(path).isSymbolicLink()).toBe(true)
    rmSync(path)
  })

  it('the socket of a process leads nowhere', async () => {
    const { cluster, directory } = await clusterForTest()
    const { socket } = directory.createProcessFolder('one')
    symlinkSync(victim(), socket)
    const served = await cluster.process('one')
    expect(served.transport).toBe('shm')
    expect(lstatSync(socket).isSocket()).toBe(true)
  })

  it('the token is refused to whoever looks for the cluster', async () => {
    const { directory } = await clusterForTest()
    const path = join(directory.path, 'token')
    rmSync(path)
    symlinkSync(victim(), path)
    expect(await failureOf(connect(undefined, { runtimeDir: directory.path }))).toMatchObject({
      code: 'ERR_RUNTIME_DIRECTORY',
      message: expect.stringContaining(`${path} is a symbolic link`) as string,
    })
    rmSync(path)
  })
})

describe('what another user has taken', () => {
  const [user, squatter] = [65_534, 65_533]
  const program = fileURLToPath(new URL('../fixtures/first_process.mjs', import.meta.url))
  const dist = fileURLToPath(new URL('../../dist', import.meta.url))
  const as = (uid: number): string[] => [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', '--bounding-set=-all']

  function obstacle(): string | undefined {
    if (process.getuid?.() !== 0) return 'only root can be two other users'
    const probe = spawnSync('setpriv', [...as(user), 'test', '-r', program])
    if (probe.error) return `setpriv: ${probe.error.message}`
    return probe.status === 0 ? undefined : `user ${user} cannot read ${program}`
  }
  const why = obstacle()
  if (why !== undefined) console.log(`skipped: ${why}`)

  interface Outcome {
    readonly code?: string
    readonly message?: string
    readonly sum?: number
    readonly doorbell?: string
  }

  function run(runtimeDir: string): Outcome {
    const output = execFileSync('setpriv', [...as(user), process.execPath, program, dist, fixtureApp, 'one'], {
      env: { ...process.env, PRAAS_RUNTIME_DIR: runtimeDir, HOME: '/nonexistent' },
    })
    return JSON.parse(output.toString()) as Outcome
  }

  function asSquatter(script: string, ...args: string[]): void {
    execFileSync('setpriv', [...as(squatter), 'bash', '-c', `umask 0; ${script}`, 'bash', ...args])
  }

  /** Where everybody may make something, as in /tmp. */
  function publicFolder(): string {
    const folder = temporaryFolder()
    chmodSync(folder, 0o1777)
    return folder
  }

  /** The user's own directory, and the names of a process in it. */
  function theirs(): { runtimeDir: string; segment: string; queue: string } {
    const runtimeDir = join(publicFolder(), 'r')
    const { segment, queue } = RuntimeDirectory.open(runtimeDir).processPaths('one')
    for (const path of [runtimeDir, ...entriesBelow(runtimeDir)]) chownSync(path, user, user)
    const rename = (name: string): string => name.replace(`-${process.getuid?.()}-`, `-${user}-`)
    return { runtimeDir, segment: rename(segment), queue: rename(queue) }
  }

  it.skipIf(why !== undefined)('nothing: it works for a user without rights', () => {
    expect(run(join(publicFolder(), 'r'))).toMatchObject({ sum: 3 })
  })

  it.skipIf(why !== undefined).each(['0700', '0777'])('a runtime directory of mode %s is refused', (mode) => {
    const runtimeDir = join(publicFolder(), 'r')
    asSquatter('mkdir --mode "$2" "$1"', runtimeDir, mode)
    expect(run(runtimeDir)).toMatchObject({
      code: 'ERR_RUNTIME_DIRECTORY',
      message: expect.stringMatching(/belongs to user 65533|cannot be opened/) as string,
    })
    expect(existsSync(join(runtimeDir, 'token'))).toBe(false)
  })

  it.skipIf(why !== undefined)('a link to a directory of the user himself is refused', () => {
    const folder = publicFolder()
    mkdirSync(join(folder, 'mine'), { mode: 0o700 })
    chownSync(join(folder, 'mine'), user, user)
    asSquatter('ln --symbolic "$1/mine" "$1/r"', folder)
    expect(run(join(folder, 'r'))).toMatchObject({
      code: 'ERR_RUNTIME_DIRECTORY',
      message: expect.stringContaining('is a symbolic link') as string,
    })
    expect(readdirSync(join(folder, 'mine'))).toEqual([])
  })

  it.skipIf(why !== undefined).each(['600', '666'])('a segment of mode %s is refused', (mode) => {
    const { runtimeDir, segment } = theirs()
    const path = `/dev/shm${segment}`
    asSquatter('truncate --size 1M "$1" && chmod "$2" "$1"', path, mode)
    try {
      expect(run(runtimeDir)).toMatchObject({
        code: 'ERR_SEGMENT_INVALID',
        message: expect.stringContaining(`belongs to user ${squatter}, not to ${user}`) as string,
      })
      expect(lstatSync(path)).toMatchObject({ uid: squatter, size: 1 << 20 })
    } finally {
      rmSync(path, { force: true })
    }
  })

  it.skipIf(why !== undefined)('a link in the place of the segment is refused', () => {
    const { runtimeDir, segment } = theirs()
    const path = `/dev/shm${segment}`
    asSquatter('ln --symbolic /etc/passwd "$1"', path)
    try {
      expect(run(runtimeDir)).toMatchObject({
        code: 'ERR_SEGMENT_INVALID',
        message: expect.stringContaining('is a symbolic link') as string,
      })
    } finally {
      rmSync(path, { force: true })
    }
  })

  it.skipIf(why !== undefined)('a message queue is not used', () => {
    const { runtimeDir, queue } = theirs()
    // In an IPC namespace of its own, so that its queues can be seen and go with it.
    const script = `
      mkdir --parents "$MOUNT" && mount -t mqueue none "$MOUNT"
      setpriv ${as(squatter).join(' ')} bash -c 'umask 0; : >"$MOUNT$QUEUE"'
      setpriv ${as(user).join(' ')} "$@"
      test -e "$MOUNT$QUEUE"`
    const environment = { PRAAS_RUNTIME_DIR: runtimeDir, MOUNT: `${runtimeDir}-mq`, QUEUE: queue }
    const command = ['bash', '-e', '-c', script, 'bash', process.execPath, program, dist, fixtureApp, 'one']
    const made = spawnSync('unshare', ['--mount', '--ipc', ...command], { env: { ...process.env, ...environment } })
    expect(made.status, String(made.stderr)).toBe(0)
    expect(JSON.parse(made.stdout.toString())).toMatchObject({
      sum: 3,
      doorbell: expect.stringMatching(/^futex: mq_unlink .*another user has taken the name/) as string,
    })
  })
})

describe('ports', () => {
  /** Local addresses and ports on which an OS process listens for TCP connections, in hexadecimal as the kernel says. */
  function listeningAt(pid: number): string[] {
    const inodes = new Set<string>()
    for (const fd of readdirSync(`/proc/${pid}/fd`)) {
      try {
        const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1]
        if (inode !== undefined) inodes.add(inode)
      } catch {
        continue // closed since
      }
    }
    return ['tcp', 'tcp6'].flatMap((family) =>
      readFileSync(`/proc/${pid}/net/${family}`, 'utf8')
        .split('\n')
        .slice(1)
        .map((line) => line.trim().split(/\s+/))
        .filter(([, , , state, , , , , , inode]) => state === '0A' && inodes.has(inode ?? ''))
        .map(([, local = '']) => local),
    )
  }
  const before = new Set(listeningAt(process.pid))
  const listening = (): string[] =>
    [process.pid, ...descendantsOf(process.pid)].flatMap(listeningAt).filter((address) => !before.has(address))
  const addressOf = (local: string): string => local.split(':')[0] ?? ''
  const loopback = '0100007F'

  it('are on loopback alone unless asked for', async () => {
    const { cluster } = await clusterForTest({ workers: 2 })
    const served = await cluster.process('one')
    await using lease = await served.lease({ workers: 2 })
    await lease.invoke('echo', new Uint8Array(8))
    // The host's, and nothing else: the agent has a UNIX socket.
    expect(listening().map(addressOf)).toEqual([loopback])
  })

  it('elsewhere give nothing without a token', async () => {
    const { cluster } = await clusterForTest({ listen: '0.0.0.0:0' })
    const served = await cluster.process('hidden')
    expect(listening().map(addressOf).sort()).toEqual(['00000000', '00000000'])
    const url = cluster.listenUrl?.replace('0.0.0.0', '127.0.0.1') ?? ''
    const { port } = await served.describe()
    expect(await failureOf(connect(url, { token: 'x' }))).toMatchObject({ code: 'ERR_TOKEN_INVALID' })
    for (const path of ['/', '/v1/health', '/v1/processes', '/v1/processes/hidden', '/v1/nothing']) {
      const reply = await fetch(`${url}${path}`)
      expect(reply.status, path).toBe(401)
      expect(await reply.text()).not.toContain('hidden')
    }
    // A client that says something else than a hello with a token is sent away and told nothing of the process.
    const socket = new Socket().on('error', () => undefined)
    const received: Buffer[] = []
    socket.on('data', (bytes: Buffer) => received.push(bytes))
    socket.connect(port, '127.0.0.1')
    socket.write(Buffer.alloc(64, 'PRAS'))
    await once(socket, 'close')
    expect(Buffer.concat(received).toString('latin1')).not.toContain('hidden')
    await using cluster2 = await connect(url, { token: await served.token() })
    expect(await (await cluster2.process('hidden')).invoke('add', { a: 1, b: 2 })).toBe(3)
  })
})
