/**
 * Named system objects of process hosts. A host notes each in its registry before it creates it, so whatever kills it,
 * what it left can be found and removed.
 */
import { readFileSync, rmSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { codeOf } from '../errors.js'
import { native } from '../native/binding.js'
import { isAlive, type OsProcess } from './os_process.js'

export interface NamedObject {
  readonly kind: 'shm' | 'mq' | 'socket'
  readonly name: string
}

/** Of shared memory and message queues; see `RuntimeDirectory.processPaths`. */
const objectName = /^\/praas-\d+-[\w-]{1,200}$/

export interface ObjectsRegistry {
  readonly objects: readonly NamedObject[]
  /** The last host that wrote here. */
  readonly host?: OsProcess
}

/**
 * What a registry file says; nothing when there is none. A last line cut short by a crash is ignored, and so is what hosts do not
 * make: what is damaged must not have other things removed.
 */
export function readRegistry(path: string): ObjectsRegistry {
  const objects = new Map<string, NamedObject>()
  let host: OsProcess | undefined
  for (const line of textOf(path).split('\n').slice(0, -1)) {
    const [kind = '', first = '', second = ''] = line.split(' ')
    const name = line.slice(kind.length + 1)
    if (kind === 'host') host = { pid: Number(first), startTime: second }
    else if ((kind === 'shm' || kind === 'mq') && objectName.test(name)) objects.set(line, { kind, name })
    else if (kind === 'socket' && name === join(dirname(path), 'host.sock')) objects.set(line, { kind, name })
  }
  return { objects: [...objects.values()], ...(host ? { host } : {}) }
}

/** Whether the host that wrote a registry still runs. */
export function hostIsAlive({ host }: ObjectsRegistry): boolean {
  return host !== undefined && isAlive(host)
}

/** Whether a live host serves the segment; undefined when there is none. */
export function segmentInUse(name: string): boolean | undefined {
  try {
    return native().segmentLocked(name)
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Removes an object. @returns whether there was one of ours: somebody else may have taken the name since. */
export function removeObject(object: NamedObject): boolean {
  try {
    return unlink(object)
  } catch (error) {
    if (['ENOENT', 'EACCES', 'EPERM', 'ERR_FS_EISDIR', 'ERR_SEGMENT_INVALID'].includes(codeOf(error) ?? ''))
      return false
    throw error
  }
}

function unlink({ kind, name }: NamedObject): boolean {
  switch (kind) {
    case 'shm':
      return native().unlinkSharedMemory(name)
    case 'mq':
      return native().unlinkMessageQueue(name)
    case 'socket':
      rmSync(name)
      return true
  }
}

function textOf(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return ''
    throw error
  }
}
