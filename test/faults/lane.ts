/** One sequence of operations of a client, with keys that nobody else writes. */
import type { Lease } from '../../src/client/lease.js'
import type { Process } from '../../src/client/process.js'
import { Aborted } from './codes.js'
import { Counter } from './counter.js'
import type { Ended, Line, Snapshot } from './history.js'
import { planLane, type PlannedKey, type ServedProcess } from './plan.js'
import type { Random } from './random.js'
import { Contradiction, Register } from './register.js'
import type { ClientSession } from './session.js'
import { Violation } from './violation.js'

/** Who serves a call: a process, by any worker, or by those of a lease. */
export interface Target {
  readonly process: ServedProcess
  readonly via: Process | Lease
  readonly leased: boolean
  /** Which functions: in TypeScript, or native ones. */
  readonly lane: 'node' | 'native'
}

export interface HeldLease {
  readonly lease: Lease
  readonly process: ServedProcess
  readonly lane: 'node' | 'native'
  readonly renew: boolean
}

export interface OwnKey extends PlannedKey {
  readonly register: Register
}

export interface OwnCounter extends Pick<PlannedKey, 'key' | 'process'> {
  readonly counter: Counter
}

export class Lane {
  readonly index: number
  readonly session: ClientSession
  readonly random: Random
  readonly keys: readonly OwnKey[]
  readonly counters: readonly OwnCounter[]
  held: HeldLease | undefined
  /** Newest versions of keys of others that were seen here. */
  readonly seen = new Map<string, bigint>()

  constructor(session: ClientSession, index: number, random: Random) {
    this.session = session
    this.index = index
    this.random = random
    const plan = planLane(session.task.seed, session.task.client, index)
    this.keys = plan.registers.map((planned) => ({ ...planned, register: new Register() }))
    this.counters = plan.counters.map((planned) => ({ ...planned, counter: new Counter() }))
  }

  /** How long an operation may take. Few have to be quick. */
  timeoutMs(): number {
    return this.random.chance(0.08) ? this.random.integer(1, 80) : this.random.integer(2_000, 5_000)
  }

  /** A signal that aborts in a moment, for few operations. */
  signal(probability = 0.05): AbortSignal | undefined {
    if (!this.random.chance(probability)) return undefined
    const controller = new AbortController()
    setTimeout(() => controller.abort(new Aborted('by the campaign')), this.random.integer(0, 30))
    return controller.signal
  }

  /** Any of the ways to call a function of a process. */
  target(process: ServedProcess): Target {
    const lanes = (['node', 'native'] as const).filter((lane) => process[lane])
    if (this.held?.process === process && !this.held.lease.closed && this.random.chance(0.7)) {
      return { process, via: this.held.lease, leased: true, lane: this.held.lane }
    }
    return { process, via: this.session.handle(process.id), leased: false, lane: this.random.pick(lanes) }
  }

  /** Turns what a model says into a violation that tells all about the key. */
  checking(check: string, key: string, id: number, describe: () => string, run: () => void): void {
    const before = describe()
    try {
      run()
    } catch (error) {
      if (!(error instanceof Contradiction)) throw error
      throw new Violation(check, `${key}: operation ${id}: ${error.message}\n  before: ${before}`)
    }
  }

  snapshot(): Omit<Snapshot, 'nextId'> {
    return {
      registers: Object.fromEntries(
        this.keys.map(({ key, register }) => {
          const { records, version } = register
          return [key, { ...(records ? { records } : {}), ...(version === undefined ? {} : { version }) }]
        }),
      ),
      counters: Object.fromEntries(this.counters.map(({ key, counter }) => [key, counter.low])),
    }
  }

  /** Takes over what predecessors of this client have done. */
  replay(lines: readonly Line[]): void {
    const ends = new Map<number, Ended>()
    for (const line of lines) if ('end' in line) ends.set(line.end, line)
    const { allowanceMs } = this.session.task
    for (const line of lines) {
      if ('snapshot' in line) {
        const { registers, counters } = line.snapshot
        for (const { key, register } of this.keys) register.restore(registers[key]?.records, registers[key]?.version)
        for (const { key, counter } of this.counters) counter.restore(counters[key] ?? 0)
      }
      if (!('begin' in line) || line.lane !== this.index || line.key === undefined) continue
      const { begin: id, kind, key, at, timeoutMs, write } = line
      const end = ends.get(id)
      const expiresMs = at + timeoutMs + allowanceMs
      const own = this.keys.find((planned) => planned.key === key)
      const counted = this.counters.find((planned) => planned.key === key)
      if (own && write) {
        own.register.expire(at)
        own.register.write(id, write, end?.result?.answer ?? { outcome: 'unknown' }, expiresMs)
      } else if (own && end?.result?.seen) {
        own.register.expire(at)
        own.register.read(end.result.seen)
      } else if (counted && kind === 'increment') {
        if (end?.result?.count === undefined) counted.counter.unknown(expiresMs)
        else counted.counter.incremented(end.result.count)
      } else if (counted && end?.result?.count !== undefined) counted.counter.read(end.result.count, at)
    }
  }
}
