import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { cleanRuntimeDirectory } from '../../src/agent/clean.js'
import { hostIsAlive, readRegistry } from '../../src/agent/named_objects.js'
import { startTimeOf } from '../../src/agent/os_process.js'
import { RuntimeDirectory } from '../../src/agent/runtime_directory.js'
import { temporaryFolder } from '../support/temporary.js'

it('reads what hosts note, once each, and ignores a line cut short', () => {
  const folder = join(temporaryFolder(), 'a b')
  mkdirSync(folder)
  const path = join(folder, 'objects')
  expect(readRegistry(path)).toEqual({ objects: [] })
  writeFileSync(
    path,
    `host 7 99\nshm /praas-0-a\nmq /praas-0-a\nsocket ${folder}/host.sock\nshm /praas-0-a\nfuture thing\nmq /praas-0-tor`,
  )
  expect(readRegistry(path)).toEqual({
    objects: [
      { kind: 'shm', name: '/praas-0-a' },
      { kind: 'mq', name: '/praas-0-a' },
      { kind: 'socket', name: `${folder}/host.sock` },
    ],
    host: { pid: 7, startTime: '99' },
  })
})

it('removes nothing for a damaged registry but what hosts make', () => {
  const directory = RuntimeDirectory.open(join(temporaryFolder(), 'r'))
  const bystander = join(directory.path, 'bystander')
  writeFileSync(bystander, 'precious')
  const { folder, objects, socket } = directory.createProcessFolder('p')
  mkdirSync(socket)
  const lines = [`socket ${bystander}`, `socket ${folder}`, `socket ${socket}`, 'shm /etc', 'mq ', 'shm /praas-0-a\0b']
  writeFileSync(objects, `${lines.join('\n')}\n`)
  expect(cleanRuntimeDirectory(directory)).toEqual({ removed: [], alive: 0 })
  expect(readFileSync(bystander, 'utf8')).toBe('precious')
  expect(existsSync(folder)).toBe(false)
})

it('tells a live host from one whose pid was given to another', () => {
  const startTime = startTimeOf(process.pid) ?? ''
  expect(hostIsAlive({ objects: [], host: { pid: process.pid, startTime } })).toBe(true)
  expect(hostIsAlive({ objects: [], host: { pid: process.pid, startTime: '1' } })).toBe(false)
  expect(hostIsAlive({ objects: [] })).toBe(false)
})
