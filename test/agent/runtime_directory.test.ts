import {
  chmodSync,
  chownSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { defaultRuntimeDirectory, RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { PraasError } from '../../src/errors.js'
import { startTimeOf } from '../../src/agent/os_process.js'
import { temporaryFolder } from '../support/temporary.js'

function refusal(open: () => unknown): string {
  try {
    open()
  } catch (error) {
    expect(error).toBeInstanceOf(PraasError)
    expect((error as PraasError).code).toBe('ERR_RUNTIME_DIRECTORY')
    return (error as Error).message
  }
  throw new Error('it was accepted')
}

const isRoot = process.getuid?.() === 0

describe('the default', () => {
  it('is chosen by the environment', () => {
    expect(defaultRuntimeDirectory({ PRAAS_RUNTIME_DIR: '/a/b', XDG_RUNTIME_DIR: '/run/user/7' })).toBe('/a/b')
    expect(defaultRuntimeDirectory({ XDG_RUNTIME_DIR: '/run/user/7' })).toBe('/run/user/7/praas')
    expect(defaultRuntimeDirectory({})).toBe(`/tmp/praas-${process.getuid?.()}`)
  })
})

describe('opening', () => {
  it('creates the directory closed to others', () => {
    const path = join(temporaryFolder(), 'r')
    expect(RuntimeDirectory.find(path)).toBeUndefined()
    RuntimeDirectory.open(path)
    for (const folder of ['', 'agents', 'processes']) expect(statSync(join(path, folder)).mode & 0o777).toBe(0o700)
    expect(RuntimeDirectory.find(path)?.path).toBe(path)
  })

  it('refuses a symbolic link, whatever it points to', () => {
    const folder = temporaryFolder()
    mkdirSync(join(folder, 'real'), { mode: 0o700 })
    symlinkSync(join(folder, 'real'), join(folder, 'link'))
    expect(refusal(() => RuntimeDirectory.open(join(folder, 'link')))).toContain('is a symbolic link')
    symlinkSync(join(folder, 'nowhere'), join(folder, 'dangling'))
    expect(refusal(() => RuntimeDirectory.open(join(folder, 'dangling')))).toContain('is a symbolic link')
  })

  it.each([0o750, 0o701, 0o777, 0o1777])('refuses mode %o and leaves it as it is', (mode) => {
    const path = join(temporaryFolder(), 'r')
    mkdirSync(path)
    chmodSync(path, mode)
    expect(refusal(() => RuntimeDirectory.open(path))).toContain('is open to others')
    expect(statSync(path).mode & 0o7777).toBe(mode)
  })

  it.runIf(isRoot)('refuses the directory of another user', () => {
    const path = join(temporaryFolder(), 'r')
    mkdirSync(path, { mode: 0o700 })
    chownSync(path, 12_345, 12_345)
    expect(refusal(() => RuntimeDirectory.open(path))).toContain('belongs to user 12345')
  })

  it('refuses a file, a missing parent, and a path too long for sockets', () => {
    const folder = temporaryFolder()
    writeFileSync(join(folder, 'file'), '')
    expect(refusal(() => RuntimeDirectory.open(join(folder, 'file')))).toContain('is not a directory')
    expect(refusal(() => RuntimeDirectory.open(join(folder, 'a', 'b')))).toContain('its parent does not exist')
    const longest = join(folder, 'x'.repeat(57 - Buffer.byteLength(`${folder}/`)))
    RuntimeDirectory.open(longest)
    expect(refusal(() => RuntimeDirectory.open(`${longest}x`))).toContain('choose a shorter one')
  })

  it('checks the folders in it, too', () => {
    const folder = temporaryFolder()
    RuntimeDirectory.open(join(folder, 'r'))
    rmSync(join(folder, 'r', 'agents'), { recursive: true })
    symlinkSync('/tmp', join(folder, 'r', 'agents'))
    expect(refusal(() => RuntimeDirectory.open(join(folder, 'r')))).toContain('agents is a symbolic link')
  })
})

describe('the token', () => {
  it('is made once, long, and readable by its owner only', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const token = directory.token()
    expect(token).toMatch(/^[\w-]{43}$/)
    expect(directory.token()).toBe(token)
    expect(RuntimeDirectory.open(directory.path).token()).toBe(token)
    expect(statSync(join(directory.path, 'token')).mode & 0o777).toBe(0o600)
  })

  it('is refused when others can read it or it is a link', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const path = join(directory.path, 'token')
    directory.token()
    chmodSync(path, 0o644)
    expect(refusal(() => directory.token())).toContain('is open to others')
    rmSync(path)
    symlinkSync('/etc/hostname', path)
    expect(refusal(() => directory.token())).toContain('is a symbolic link')
  })
})

describe('the key of a process', () => {
  it('is its own, stays with its folder, and is readable by its owner only', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    for (const id of ['a', 'b']) directory.createProcessFolder(id)
    expect(directory.findProcessKey('a')).toBeUndefined()
    const key = directory.processKey('a')
    expect(key).toMatch(/^[\w-]{43}$/)
    expect(directory.processKey('a')).toBe(key)
    expect(RuntimeDirectory.open(directory.path).findProcessKey('a')).toBe(key)
    expect(directory.processKey('b')).not.toBe(key)
    expect(statSync(directory.processPaths('a').tokenKey).mode & 0o777).toBe(0o600)
    directory.removeProcessFolder('a')
    directory.createProcessFolder('a')
    expect(directory.processKey('a')).not.toBe(key)
  })

  it('is refused when others can read it or it is a link', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const { tokenKey } = directory.createProcessFolder('a')
    directory.processKey('a')
    chmodSync(tokenKey, 0o640)
    expect(refusal(() => directory.processKey('a'))).toContain('is open to others')
    expect(refusal(() => directory.findProcessKey('a'))).toContain('is open to others')
    rmSync(tokenKey)
    symlinkSync('/etc/hostname', tokenKey)
    expect(refusal(() => directory.processKey('a'))).toContain('is a symbolic link')
  })
})

describe('names of a process', () => {
  it('depend on id and directory, and fit POSIX names', () => {
    const one = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const other = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const paths = one.processPaths('grid/../7 ü')
    expect(paths.segment).toMatch(new RegExp(`^/praas-${process.getuid?.()}-[0-9a-f]{24}$`))
    expect(paths.folder.startsWith(join(one.path, 'processes'))).toBe(true)
    expect(one.processPaths('grid/../7 ü')).toEqual(paths)
    expect(one.processPaths('other').segment).not.toBe(paths.segment)
    expect(other.processPaths('grid/../7 ü').segment).not.toBe(paths.segment)
  })
})

describe('agents', () => {
  const self = { pid: process.pid, startTime: startTimeOf(process.pid) ?? '' }

  it('are found while they live and say how they are reached', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const silent = directory.createAgentFolder(self)
    const mine = directory.createAgentFolder(self)
    expect([silent.folder, mine.folder].map((folder) => statSync(folder).mode & 0o777)).toEqual([0o700, 0o700])
    expect(directory.agents()).toEqual([])
    directory.announce(mine, { url: 'praas+unix:/x', listen: 'http://a:1' })
    expect(directory.agents()).toEqual([{ url: 'praas+unix:/x', listen: 'http://a:1' }])
    directory.withdraw(mine)
    expect(directory.agents()).toEqual([])
    expect(directory.deadAgents()).toEqual([])
    directory.removeAgentFolder(mine)
    expect(readdirSync(join(directory.path, 'agents'))).toEqual([basename(silent.folder)])
  })

  it('that have ended are known by their folders', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    directory.announce(directory.createAgentFolder(self), { url: 'praas+unix:/x' })
    // The pid lives, but it is another OS process now.
    const reused = directory.createAgentFolder({ ...self, startTime: '1' })
    directory.announce(reused, { url: 'praas+unix:/y' })
    // Of a container that shares the directory, where pids are others.
    const [, ...rest] = basename(reused.folder).split('-')
    mkdirSync(join(directory.path, 'agents', ['1', ...rest].join('-')))
    expect(directory.agents()).toEqual([{ url: 'praas+unix:/x' }])
    expect(directory.deadAgents()).toEqual([reused.folder])
  })

  it('whose records are damaged are none', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    for (const text of ['{"url":', 'null', '7', '{}', '[]', '{"url":7}', '{"url":"","listen":1}']) {
      writeFileSync(directory.createAgentFolder(self).record, text, { mode: 0o600 })
    }
    expect(directory.agents()).toEqual([])
    expect(directory.deadAgents()).toEqual([])
  })

  it('that others could have written are refused', () => {
    const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
    const { record } = directory.createAgentFolder(self)
    writeFileSync(record, '{"url":"http://evil"}')
    chmodSync(record, 0o666)
    expect(refusal(() => directory.agents())).toContain('agent.json is open to others')
    expect(readFileSync(record, 'utf8')).toContain('evil')
  })
})
