import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { hostIsAlive, readRegistry } from '../../src/agent/named_objects.js'
import { startTimeOf } from '../../src/agent/os_process.js'
import { temporaryFolder } from '../support/temporary.js'

it('reads what hosts note, once each, and ignores a line cut short', () => {
  const path = join(temporaryFolder(), 'objects')
  expect(readRegistry(path)).toEqual({ objects: [] })
  writeFileSync(
    path,
    'host 7 99\nshm /praas-0-a\nmq /praas-0-a\nsocket /tmp/a b/host.sock\nshm /praas-0-a\nfuture thing\nmq /praas-0-tor',
  )
  expect(readRegistry(path)).toEqual({
    objects: [
      { kind: 'shm', name: '/praas-0-a' },
      { kind: 'mq', name: '/praas-0-a' },
      { kind: 'socket', name: '/tmp/a b/host.sock' },
    ],
    host: { pid: 7, startTime: '99' },
  })
})

it('tells a live host from one whose pid was given to another', () => {
  const startTime = startTimeOf(process.pid) ?? ''
  expect(hostIsAlive({ objects: [], host: { pid: process.pid, startTime } })).toBe(true)
  expect(hostIsAlive({ objects: [], host: { pid: process.pid, startTime: '1' } })).toBe(false)
  expect(hostIsAlive({ objects: [] })).toBe(false)
})
