/**
 * The folder where one user's clusters on one machine find each other: control sockets, token, logs, and the registry of
 * named system objects.
 *
 * Whoever can write here can pose as the cluster, so it has to be a real directory of this user, closed to everybody else;
 * anything else is refused, never repaired.
 */
import { createHash, randomBytes } from 'node:crypto'
import {
  constants,
  closeSync,
  fstatSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  linkSync,
  statSync,
} from 'node:fs'
import { join, resolve } from 'node:path'
import { z } from 'zod'
import { codeOf, messageOf, PraasError } from '../errors.js'
import { isAlive, type OsProcess } from './os_process.js'

/** sun_path of a UNIX socket address, less the terminating NUL. */
const maxSocketPathBytes = 107

/** How one agent that serves this runtime directory is reached. */
export interface AgentRecord {
  /** Control URL, `praas+unix:PATH`. */
  readonly url: string
  /** Control URL for other machines. */
  readonly listen?: string | undefined
}

const agentSchema: z.ZodType<AgentRecord> = z.object({
  url: z.string(),
  listen: z.string().optional(),
})

/** Paths of one agent, all in a folder of its own. */
export interface AgentPaths {
  readonly folder: string
  readonly record: string
  readonly socket: string
  /** What its workers load: bundles, and copies of libraries. */
  readonly apps: string
}

/** Names of agents' folders: the PID namespace and the OS process, and what tells several of one OS process apart. */
const agentFolder = /^(?<namespace>\d+)-(?<pid>\d+)-(?<startTime>\d+)-\w{6}$/

/** Paths of one process, all in a folder of its own. */
export interface ProcessPaths {
  /** First 24 hex digits of what its names are derived from. */
  readonly key: string
  readonly folder: string
  readonly log: string
  readonly objects: string
  readonly socket: string
  /** What tokens of its data connections are signed with. */
  readonly tokenKey: string
  /** POSIX names of its shared memory object and message queue. */
  readonly segment: string
  readonly queue: string
}

/** `PRAAS_RUNTIME_DIR`, else `$XDG_RUNTIME_DIR/praas`, else `/tmp/praas-UID`. */
export function defaultRuntimeDirectory(environment: NodeJS.ProcessEnv = process.env): string {
  const { PRAAS_RUNTIME_DIR: own, XDG_RUNTIME_DIR: session } = environment
  if (own) return resolve(own)
  return session ? join(session, 'praas') : `/tmp/praas-${ownUid()}`
}

export class RuntimeDirectory {
  readonly path: string

  private constructor(path: string) {
    this.path = path
  }

  /**
   * Opens the directory, creating it with mode 0700 when there is none.
   *
   * @throws {PraasError} `ERR_RUNTIME_DIRECTORY` for a symbolic link, another owner, or access for others
   */
  static open(path: string = defaultRuntimeDirectory()): RuntimeDirectory {
    const absolute = resolve(path)
    createPrivate(absolute)
    const { socket: longest } = agentPaths(join(absolute, 'agents', '4294967295-4194304-99999999999-XXXXXX'))
    if (Buffer.byteLength(longest) > maxSocketPathBytes) {
      throw refused(
        absolute,
        `is too long for the sockets in it: ${longest} exceeds ${maxSocketPathBytes} bytes; choose a shorter one`,
      )
    }
    for (const folder of ['agents', 'processes']) createPrivate(join(absolute, folder))
    return new RuntimeDirectory(absolute)
  }

  /** The same, but undefined when there is none. */
  static find(path: string = defaultRuntimeDirectory()): RuntimeDirectory | undefined {
    if (!lstatSync(resolve(path), { throwIfNoEntry: false })) return undefined
    return RuntimeDirectory.open(path)
  }

  /** The secret that control requests carry. Made on first use. */
  token(): string {
    return makeSecret(join(this.path, 'token'))
  }

  /**
   * The key that tokens of a process are signed with, base64url. Made on first use, and gone with the process's folder: it
   * outlives hosts and agents, and tokens of a process that was removed are worth nothing to the next one of its id.
   */
  processKey(id: string): string {
    return makeSecret(this.processPaths(id).tokenKey)
  }

  /** The same, but undefined when there is none. */
  findProcessKey(id: string): string | undefined {
    const { tokenKey } = this.processPaths(id)
    return lstatSync(tokenKey, { throwIfNoEntry: false }) ? readSecret(tokenKey) : undefined
  }

  /** Paths and names of a process. The same id in another directory or user namespace is another process. */
  processPaths(id: string): ProcessPaths {
    const namespace = statSync('/proc/self/ns/user').ino
    const key = createHash('sha256').update(`${this.path}\0${namespace}\0${id}`).digest('hex').slice(0, 24)
    const folder = join(this.path, 'processes', key)
    const name = `/praas-${ownUid()}-${key}`
    return {
      key,
      folder,
      log: join(folder, 'log'),
      objects: join(folder, 'objects'),
      tokenKey: join(folder, 'key'),
      socket: join(folder, 'host.sock'),
      segment: name,
      queue: name,
    }
  }

  createProcessFolder(id: string): ProcessPaths {
    const paths = this.processPaths(id)
    createPrivate(paths.folder)
    return paths
  }

  removeProcessFolder(id: string): void {
    rmSync(this.processPaths(id).folder, { recursive: true, force: true })
  }

  /** @param owner  The OS process whose agent it is, for as long as that lives. */
  createAgentFolder({ pid, startTime }: OsProcess): AgentPaths {
    return agentPaths(mkdtempSync(join(this.path, 'agents', `${pidNamespace()}-${pid}-${startTime}-`)))
  }

  /** Lets others find the agent. */
  announce({ record: path }: AgentPaths, record: AgentRecord): void {
    renameSync(writeDraft(path, JSON.stringify(record)), path)
  }

  /** Lets nobody find it any more. */
  withdraw({ record, socket }: AgentPaths): void {
    for (const path of [record, socket]) rmSync(path, { force: true })
  }

  removeAgentFolder({ folder }: AgentPaths): void {
    rmSync(folder, { recursive: true, force: true })
  }

  /** Agents that are alive, oldest first. */
  agents(): AgentRecord[] {
    return this.#agentFolders()
      .filter(({ owner }) => isAlive(owner))
      .sort((a, b) => Number(a.owner.startTime) - Number(b.owner.startTime))
      .map(({ folder }) => readAgent(agentPaths(folder)))
      .filter((record) => record !== undefined)
  }

  /** Folders of agents that have ended without removing them. */
  deadAgents(): string[] {
    return this.#agentFolders()
      .filter(({ owner }) => !isAlive(owner))
      .map(({ folder }) => folder)
  }

  /** Folders of all processes that ever were here and were not cleaned up. */
  processFolders(): string[] {
    return readdirSync(join(this.path, 'processes')).map((key) => join(this.path, 'processes', key))
  }

  /** Those of this PID namespace: nobody can tell from here whether others live. */
  #agentFolders(): { readonly folder: string; readonly owner: OsProcess }[] {
    const folders = join(this.path, 'agents')
    const here = String(pidNamespace())
    return readdirSync(folders).flatMap((name) => {
      const { namespace, pid, startTime = '' } = agentFolder.exec(name)?.groups ?? {}
      return namespace === here ? [{ folder: join(folders, name), owner: { pid: Number(pid), startTime } }] : []
    })
  }
}

function pidNamespace(): number {
  return statSync('/proc/self/ns/pid').ino
}

function agentPaths(folder: string): AgentPaths {
  return {
    folder,
    record: join(folder, 'agent.json'),
    socket: join(folder, 'sock'),
    apps: join(folder, 'apps'),
  }
}

/** Undefined when there is none, or it is damaged. */
function readAgent({ record: path }: AgentPaths): AgentRecord | undefined {
  try {
    return agentSchema.safeParse(JSON.parse(readPrivate(path))).data
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || error instanceof SyntaxError) return undefined
    throw error
  }
}

function createPrivate(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 })
  } catch (error) {
    if (codeOf(error) === 'ENOENT') throw refused(path, 'cannot be created: its parent does not exist')
    if (codeOf(error) !== 'EEXIST') throw refused(path, `cannot be created: ${messageOf(error)}`, error)
  }
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY | constants.O_NOFOLLOW)
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ELOOP') throw refused(path, 'is a symbolic link')
    // Linux reports a link as "not a directory" when both O_DIRECTORY and O_NOFOLLOW are given.
    if (code === 'ENOTDIR') {
      throw refused(path, lstatSync(path).isSymbolicLink() ? 'is a symbolic link' : 'is not a directory')
    }
    throw refused(path, `cannot be opened: ${messageOf(error)}`, error)
  }
  try {
    checkPrivate(path, fd)
  } finally {
    closeSync(fd)
  }
}

/** The 32 random bytes of a file, base64url, made unless they are there. */
function makeSecret(path: string): string {
  if (!lstatSync(path, { throwIfNoEntry: false })) {
    // Linked into place when complete, so that no one reads half a secret and only one of several writers wins.
    const draft = writeDraft(path, `${randomBytes(32).toString('base64url')}\n`)
    try {
      linkSync(draft, path)
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
    } finally {
      rmSync(draft, { force: true })
    }
  }
  return readSecret(path)
}

/** @throws {PraasError} `ERR_RUNTIME_DIRECTORY` for what is not a secret, such as an empty file, which anybody could guess */
function readSecret(path: string): string {
  const secret = readPrivate(path).trim()
  if (!/^[\w-]{43}$/.test(secret)) throw refused(path, 'does not hold a secret')
  return secret
}

/** A new file beside `path`, whose name nobody knows before. @returns its path */
function writeDraft(path: string, text: string): string {
  const draft = `${path}.${randomBytes(6).toString('hex')}`
  writeFileSync(draft, text, { mode: 0o600, flag: 'wx' })
  return draft
}

function readPrivate(path: string): string {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW)
  } catch (error) {
    if (codeOf(error) === 'ELOOP') throw refused(path, 'is a symbolic link')
    throw error
  }
  try {
    checkPrivate(path, fd)
    return readFileSync(fd, 'utf8')
  } finally {
    closeSync(fd)
  }
}

/** The user this OS process acts as, who need not be in /etc/passwd. */
function ownUid(): number {
  const uid = process.geteuid?.()
  if (uid === undefined) throw new PraasError('ERR_UNSUPPORTED', `praas runs on Linux; this is ${process.platform}`)
  return uid
}

/** Looks at the open file, so that nobody can exchange it between check and use. */
function checkPrivate(path: string, fd: number): void {
  const { uid, mode } = fstatSync(fd)
  if (uid !== ownUid()) throw refused(path, `belongs to user ${uid}, not to ${ownUid()}`)
  if ((mode & 0o077) !== 0) throw refused(path, `is open to others (mode ${(mode & 0o777).toString(8)})`)
}

function refused(path: string, why: string, cause?: unknown): PraasError {
  return new PraasError(
    'ERR_RUNTIME_DIRECTORY',
    `runtime directory: ${path} ${why}; remove it, or set PRAAS_RUNTIME_DIR to a directory of yours with mode 0700`,
    { cause },
  )
}
