/** What leases are taken with. */
import { z } from 'zod'
import type { WorkerKind } from '../control.js'
import { abortSignal, duration, integer, name, parseOptions } from '../options.js'
import { maxLeaseWorkers, maxTimeoutMs } from '../limits.js'
import type { Duration } from '../units.js'
import type { LeaseNotice } from './lease_notices.js'

export interface LeaseOptions {
  /** How many workers, 1 … 1000, at most the process's `leaseWorkers`. Default: 1. */
  readonly workers?: number
  /**
   * How long they poll for the next call before they sleep, milliseconds: −1 always, 0 never. A worker that polls takes a
   * processor. Default: −1.
   */
  readonly hotMs?: number
  /** Until it expires unless it is renewed, 1 ms … 7 days. Default: 10 s. */
  readonly ttlMs?: Duration
  /** How long to wait for workers that others have, 0 … 7 days; 0: not at all. Default: 0. */
  readonly waitMs?: Duration
  /** Renews it by itself while calls are made; without any it expires. Default: true. */
  readonly renew?: boolean
  /** Workers that run TypeScript functions, or native ones. Default: the former, if the process has any. */
  readonly runtime?: WorkerKind
  /** What lists call it, 1 … 255 bytes. */
  readonly name?: string
  /** How its workers are reached. Default: as the cluster object connects. */
  readonly transport?: 'auto' | 'shm' | 'verbs' | 'tcp'
  /** Told what becomes of it and its workers. */
  readonly onNotice?: (notice: LeaseNotice) => void
  /** Aborting gives up taking it; afterwards it has no effect. */
  readonly signal?: AbortSignal
  /** For starting the workers and connecting to them, beside `waitMs`. Default: 30 s. */
  readonly timeoutMs?: Duration
}

const schema = z.object({
  workers: integer(1, maxLeaseWorkers).default(1),
  hotMs: integer(-1, maxTimeoutMs).default(-1),
  ttlMs: duration(1, maxTimeoutMs).default(10_000),
  waitMs: duration(0, maxTimeoutMs).default(0),
  renew: z.boolean().default(true),
  runtime: z.enum(['node', 'native']).optional(),
  name: name.optional(),
  transport: z.enum(['auto', 'shm', 'verbs', 'tcp']).optional(),
  onNotice: z
    .custom<(notice: LeaseNotice) => void>((value) => typeof value === 'function', 'expected a function')
    .optional(),
  signal: abortSignal.optional(),
  timeoutMs: duration(1, maxTimeoutMs).default(30_000),
})

export type ParsedLeaseOptions = z.output<typeof schema>

/** @throws {ArgumentError} for an option that is not known or out of bounds */
export function parseLeaseOptions(options: LeaseOptions): ParsedLeaseOptions {
  return parseOptions(schema, options, 'lease')
}
