/** What processes are created with and how clients connect to them. */
import { fileURLToPath } from 'node:url'
import { resolve } from 'node:path'
import { z } from 'zod'
import type { ProcessOptions } from '../control.js'
import { abortSignal, duration, integer, parseOptions, size, timeout } from '../options.js'
import { maxLeaseWorkers, maxTimeoutMs, maxWorkers } from '../limits.js'
import type { Duration, Size } from '../units.js'
import type { LinkOptions } from './link.js'

/** What a process is created with. Fixed for its life. */
export interface CreateOptions {
  /** The application: path or file URL of its entry, or the name of a deployed one. Default: the cluster's own. */
  readonly app?: string | URL
  /**
   * Workers that run its functions, 1 … 512; up to 1000 when the application has no TypeScript. At most 1000 with
   * `nativeWorkers`. Default: 1.
   */
  readonly workers?: number
  /** Workers that run its native functions, if it has any, 1 … 1000. Default: as many as `workers`. */
  readonly nativeWorkers?: number
  /**
   * Private memory of one native worker, 64 MiB … 1 TiB: what a function allocates beyond it fails. Shared state and
   * payloads do not count. Default: 4 GiB.
   */
  readonly workerMemory?: Size
  /**
   * Most workers that leases may have at a time, 0 … 1000, in addition to `workers` and `nativeWorkers`. They are started
   * when a lease needs them. Default: 64.
   */
  readonly leaseWorkers?: number
  /** Async invocations one worker runs at a time, 1 … 1024. Default: 1. */
  readonly concurrency?: number
  /** Limit of its state. Committed as it is used. Default: 1 GiB. */
  readonly memory?: Size
  /** Limit of payloads on their way. Committed as it is used. Default: 1 GiB. */
  readonly pool?: Size
  /** Limit of published values (`state.publish`), 64 KiB … 32 GiB. Committed as it is used. Default: 16 MiB. */
  readonly publications?: Size
  /** How long workers poll for the next call before they sleep, milliseconds: −1 always, 0 never. Default: 1. */
  readonly hotMs?: number
  /** Calls waiting or running at a time, 16 … 4096; beyond, callers wait. Default: 1024. */
  readonly backlog?: number
  /** Deadline of calls that name none. Default: 60 s. */
  readonly defaultTimeoutMs?: Duration
  /** After a missed deadline, until the worker is killed. Default: 100 ms. */
  readonly graceMs?: Duration
  /** Largest payload in one piece, 4 KiB … 4 GiB − 1. Default: 64 MiB. */
  readonly maxContiguous?: Size
}

/** How clients connect to processes. */
export interface DataOptions {
  /**
   * `auto`: shared memory on the same host, else RDMA where both sides have a device for it, else TCP. `shm` and `verbs`
   * (RDMA) fail where they are impossible. Default: `auto`.
   */
  readonly transport?: 'auto' | 'shm' | 'verbs' | 'tcp'
  /** Address space for payloads of a connection over shared memory or RDMA; memory is taken as it is used. Default: 1 GiB. */
  readonly window?: Size
  /** Checksums of all payloads that travel over TCP, verified on both sides; RDMA devices have their own. Default: false. */
  readonly checksum?: boolean
  /** How long a waiting call polls before it sleeps, milliseconds: −1 always. Default: 0.05. */
  readonly hotMs?: number
  /** For one attempt to connect to a process. Default: 5 s. */
  readonly connectTimeoutMs?: Duration
}

/** Values of options that were not given. How many workers there are depends on the application. */
export const processDefaults = {
  workerMemoryBytes: 4 * 2 ** 30,
  leaseWorkers: 64,
  concurrency: 1,
  memoryBytes: 2 ** 30,
  poolBytes: 2 ** 30,
  publicationBytes: 16 * 2 ** 20,
  hotMs: 1,
  backlog: 1024,
  defaultTimeoutMs: 60_000,
  graceMs: 100,
  maxContiguousBytes: 64 * 2 ** 20,
} as const satisfies Required<Omit<ProcessOptions, 'app' | 'workers' | 'nativeWorkers'>>

const GiB = 2 ** 30

export const createShape = {
  app: z.union([z.string().min(1), z.instanceof(URL)]).optional(),
  workers: integer(1, maxWorkers).optional(),
  nativeWorkers: integer(1, maxWorkers).optional(),
  workerMemory: size(64 * 2 ** 20, 1024 * GiB).optional(),
  leaseWorkers: integer(0, maxLeaseWorkers).optional(),
  concurrency: integer(1, 1024).optional(),
  memory: size(2 ** 20, 1024 * GiB).optional(),
  pool: size(16 * 2 ** 20, 1024 * GiB).optional(),
  publications: size(64 * 2 ** 10, 32 * GiB).optional(),
  hotMs: integer(-1, 86_400_000).optional(),
  backlog: integer(16, 4096).optional(),
  defaultTimeoutMs: duration(1, maxTimeoutMs).optional(),
  graceMs: duration(0, 60_000).optional(),
  maxContiguous: size(4096, 4 * GiB - 1).optional(),
}

export const dataShape = {
  transport: z.enum(['auto', 'shm', 'verbs', 'tcp']).optional(),
  window: size(4 * 2 ** 20, 1024 * GiB).optional(),
  checksum: z.boolean().optional(),
  hotMs: z.number().min(-1).max(maxTimeoutMs).optional(),
  connectTimeoutMs: duration(1, 600_000).optional(),
}

const processSchema = z.object({
  ...createShape,
  create: z.boolean().optional(),
  timeoutMs: timeout.optional(),
  signal: abortSignal.optional(),
})

/** Creation options as the control plane takes them. */
export function toProcessOptions(options: z.output<z.ZodObject<typeof createShape>>): ProcessOptions {
  const { app, memory, pool, publications, maxContiguous, workerMemory, ...rest } = options
  return withoutUndefined({
    ...rest,
    app: app === undefined ? undefined : appReference(app),
    memoryBytes: memory,
    poolBytes: pool,
    publicationBytes: publications,
    maxContiguousBytes: maxContiguous,
    workerMemoryBytes: workerMemory,
  })
}

/** Of a path or a file URL. */
export function absolutePath(path: string | URL): string {
  return path instanceof URL || path.startsWith('file:') ? fileURLToPath(path) : resolve(path)
}

/** A path as an absolute path; the name of a deployed application as it is. */
export function appReference(app: string | URL): string {
  if (app instanceof URL || app.startsWith('file:')) return absolutePath(app)
  // A name has neither separators nor the extension of a module, a shared object or a function table.
  return /[/\\]|\.([cm]?[jt]sx?|so(\.\d+)*|json)$/.test(app) ? resolve(app) : app
}

export function parseProcessOptions(options: unknown, where: string): z.output<typeof processSchema> {
  return parseOptions(processSchema, options, where)
}

export function toLinkOptions(options: z.output<z.ZodObject<typeof dataShape>>): LinkOptions {
  return {
    transport: options.transport ?? 'auto',
    windowBytes: options.window ?? GiB,
    checksum: options.checksum ?? false,
    hotMs: options.hotMs ?? 0.05,
    connectTimeoutMs: options.connectTimeoutMs ?? 5_000,
  }
}

type Defined<Fields> = { [Key in keyof Fields]?: Exclude<Fields[Key], undefined> }

/** Leaves out what is undefined, which `exactOptionalPropertyTypes` tells apart from what is absent. */
export function withoutUndefined<Fields extends object>(fields: Fields): Defined<Fields> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Defined<Fields>
}
