/**
 * Clusters that have less of something than this machine: `praas run` in namespaces of its own, as a user of its own.
 * Clients are elsewhere and have enough of everything.
 */
import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, onTestFinished, vi } from 'vitest'
import type { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import type { ProcessDescription } from '../../src/control.js'
import { compiledModule } from '../../src/package.js'
import { fixtureApp } from './cluster.js'
import { makeTemporaryFolder } from './temporary.js'

const main = compiledModule('cli/main.js')

export interface Confinement {
  /** What /dev/shm holds. Default: this machine's own. */
  readonly shm?: string
  /** What the runtime directory holds, which then is a file system of its own. */
  readonly disk?: string
  /** Limits as prlimit(1) writes them, such as `--nofile=64:64`. */
  readonly limits?: readonly string[]
  /** Options of `praas run`. */
  readonly options?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  /**
   * A network of its own, in which it listens at this IPv4 address, on one end of a cable: interface `praas0`. The other
   * end is there, too, as `praas1`. Clients outside of that network reach it over sockets of the file system.
   */
  readonly address?: string
}

/** Why there are no confined clusters here, or undefined. */
export function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can make namespaces and take rights away'
  const probe = spawnSync('unshare', ['--mount', 'setpriv', ...withoutRights, 'test', '-r', main])
  if (probe.error) return `unshare: ${probe.error.message}`
  return probe.status === 0 ? undefined : `no namespaces here: ${String(probe.stderr)}`
}

/** Limits do not hold for who may exceed them. The user stays, because clients have to be the same. */
const withoutRights = ['--bounding-set=-sys_resource,-sys_admin', '--inh-caps=-sys_resource,-sys_admin']

export class Confined {
  readonly #child: ChildProcess
  readonly folder: string
  readonly #runtimeDir: string
  #text = ''

  private constructor(child: ChildProcess, folder: string, runtimeDir: string) {
    this.#child = child
    this.folder = folder
    this.#runtimeDir = runtimeDir
    child.stdout?.on('data', (chunk) => (this.#text += String(chunk)))
  }

  /** Serves the fixtures' application as process `main`, for one test. */
  static async start(confinement: Confinement = {}): Promise<Confined> {
    const folder = makeTemporaryFolder()
    chmodSync(folder, 0o700)
    const runtimeDir = join(folder, 'run')
    const { shm, disk, limits = [], options = [], environment = {}, address } = confinement
    const preparations = [
      ...(shm === undefined ? [] : [`mount -t tmpfs -o size=${shm},mode=1777 tmpfs /dev/shm`]),
      ...(disk === undefined
        ? []
        : [`mkdir -m 700 ${runtimeDir}`, `mount -t tmpfs -o size=${disk},mode=700 tmpfs ${runtimeDir}`]),
      ...(address === undefined
        ? []
        : [
            'ip link set lo up',
            'ip link add praas0 type veth peer name praas1',
            `ip address add ${address}/24 dev praas0`,
            'ip link set praas0 up',
          ]),
    ]
    const namespaces = ['--mount', ...(address === undefined ? [] : ['--net'])]
    const script = [
      ...preparations,
      `exec setpriv ${withoutRights.join(' ')} prlimit ${limits.join(' ')} "$0" "$@"`,
    ].join(' && ')
    const args = [
      'run',
      fixtureApp,
      '-p',
      'main',
      '--memory',
      '32MiB',
      '--json',
      '--listen',
      `${address ?? '127.0.0.1'}:0`,
      ...options,
    ]
    const child = spawn('unshare', [...namespaces, 'bash', '-c', script, process.execPath, main, ...args], {
      env: { ...process.env, ...environment, PRAAS_RUNTIME_DIR: runtimeDir },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const confined = new Confined(child, folder, runtimeDir)
    onTestFinished(() => confined.#stop())
    await vi.waitUntil(() => confined.#text.includes('\n}\n') || child.exitCode !== null, { timeout: 50_000 })
    expect(child.exitCode, 'praas run has ended').toBeNull()
    return confined
  }

  get pid(): number {
    return this.#child.pid ?? 0
  }

  /** What `praas run` has announced. */
  get announced(): { readonly url: string; readonly listen: string } {
    return JSON.parse(this.#text.slice(0, this.#text.indexOf('\n}\n') + 2)) as { url: string; listen: string }
  }

  /** A path as the cluster sees it, from here. */
  seen(path: string): string {
    return join('/proc', String(this.pid), 'root', path)
  }

  /** Of the cluster, from here. */
  get runtimeDir(): string {
    return this.seen(this.#runtimeDir)
  }

  /** A client for one test. */
  async client(transport: 'auto' | 'shm' | 'tcp' = 'auto'): Promise<Cluster> {
    const cluster = await connect(this.announced.url.replace(this.#runtimeDir, this.runtimeDir), {
      transport,
      connectTimeoutMs: 5_000,
    })
    onTestFinished(() => cluster.close())
    return cluster
  }

  async describe(cluster: Cluster, id = 'main'): Promise<ProcessDescription> {
    const found = (await cluster.processes()).find((process) => process.id === id)
    if (found === undefined) throw new Error(`there is no process ${id}`)
    return found
  }

  /** Takes what the file system of a directory has left; gives it back when called. */
  fill(directory: string): () => void {
    const path = join(directory, 'filler')
    const block = new Uint8Array(1 << 16)
    for (let left = true; left;) {
      try {
        writeFileSync(path, block, { flag: 'a' })
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' })
        left = false
      }
    }
    return () => rmSync(path)
  }

  async #stop(): Promise<void> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) {
      const exit = once(this.#child, 'exit')
      this.#child.kill('SIGTERM')
      expect(await exit).toEqual([0, null])
    }
    rmSync(this.folder, { recursive: true, force: true })
  }
}

/** Changes limits of an OS process that runs; those who start it again inherit those of its parent. */
export function setLimits(pid: number, ...limits: string[]): void {
  execFileSync('prlimit', ['--pid', String(pid), ...limits])
}

/** Open descriptors of an OS process. */
export function descriptors(pid: number): number {
  return Number(execFileSync('sh', ['-c', `ls /proc/${pid}/fd | wc -l`]).toString())
}

/** Bytes of an OS process's memory that are in use, shared memory aside. */
export function privateBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1] ?? Number.NaN) * 1024
}
