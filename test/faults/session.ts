/** What the lanes of a client share: its connections, its history, the numbers of its operations, and its clock. */
import type { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import { messageOf } from '../../src/errors.js'
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.js'
import { codeIn, expected } from './codes.js'
import type { Begun, History, Result } from './history.js'
import { processes, type ClientTask } from './plan.js'
import type { Random } from './random.js'
import { Violation, within } from './violation.js'

/** Another lane of this client is connecting anew. */
export class Reconnecting extends Error {
  readonly code = 'reconnecting'
}

/** What nobody answers for so long beyond its deadline hangs. */
const hangMs = 45_000
const connectMs = 20_000
/** Before another look for an agent. */
const absentMs = 20

const isAbsent = (code: string): boolean => (expected.absent as readonly string[]).includes(code)

export interface Attempted<Value> {
  /** Of the operation. */
  readonly id: number
  readonly beganMs: number
  readonly value?: Value
  /** What it failed with, and its code. */
  readonly error?: unknown
  readonly code?: string
}

export type Attempt = Omit<Begun, 'begin' | 'at'> & { readonly expected: readonly string[] }

export class ClientSession {
  readonly task: ClientTask
  readonly history: History
  transport = 'none'
  readonly #random: Random
  #cluster: Cluster | undefined
  readonly #handles = new Map<string, Process>()
  #nextId: number
  #blockedMs = 0
  /** Rises when this client closes connections that others use. */
  #closings = 0

  constructor(task: ClientTask, history: History, nextId: number, random: Random) {
    this.task = task
    this.history = history
    this.#nextId = nextId
    this.#random = random
  }

  get nextId(): number {
    return this.#nextId
  }

  /** The first of `count` numbers that no other operation of the campaign has. */
  takeIds(count: number): number {
    const first = this.#nextId
    this.#nextId += count
    return first
  }

  handle(id: string): Process {
    const handle = this.#handles.get(id)
    if (!handle) throw new Reconnecting()
    return handle
  }

  async open(): Promise<void> {
    let deadline = nowMs() + hangMs
    for (;;) {
      try {
        return await this.#open()
      } catch (error) {
        await this.close()
        const code = codeIn(error)
        if (isAbsent(code)) {
          // How long the next agent may take is the driver's affair.
          await delay(absentMs)
          deadline = nowMs() + hangMs
        } else if (!(expected.connect as readonly string[]).includes(code)) {
          throw new Violation('documented errors', `connecting by ${this.transport}: ${code}: ${messageOf(error)}`)
        }
        if (nowMs() > deadline) {
          throw new Violation('nothing hangs', `connecting takes more than ${hangMs} ms: ${messageOf(error)}`)
        }
      }
    }
  }

  async #open(): Promise<void> {
    const transport = this.#random.pick(this.task.transports)
    this.transport = transport
    this.#cluster = await connect(undefined, {
      runtimeDir: this.task.runtimeDir,
      transport,
      window: '256 MiB',
      checksum: this.#random.chance(0.3),
      hotMs: this.#random.pick([0, 0.05, 1]),
    })
    for (const { id } of processes) {
      this.#handles.set(id, await this.#cluster.process(id, { create: false, timeoutMs: connectMs }))
    }
  }

  /** Whatever else goes on over them. */
  async close(): Promise<void> {
    this.#closings++
    this.#handles.clear()
    const cluster = this.#cluster
    this.#cluster = undefined
    await cluster?.close()
  }

  /** Time in which this thread does nothing else is nobody's delay. */
  blocking<Value>(run: () => Value): Value {
    const began = nowMs()
    try {
      return run()
    } finally {
      this.#blockedMs += nowMs() - began
    }
  }

  /**
   * Does one operation, writes down that it begins and how it ended, and sees to it that it ends in time, and with a result or
   * an error that is documented for it.
   */
  async attempt<Value>(
    { expected: codes, ...about }: Attempt,
    run: (id: number) => Promise<Value>,
    note: (value: Value) => Result | undefined = () => undefined,
  ): Promise<Attempted<Value>> {
    const id = about.ids?.[0] ?? this.takeIds(1)
    const closings = this.#closings
    const beganMs = nowMs()
    const blockedMs = this.#blockedMs
    this.history.write({ begin: id, at: beganMs, ...about, route: about.route ?? this.transport })
    const lateMs = (): number => {
      const late = nowMs() - beganMs - about.timeoutMs - (this.#blockedMs - blockedMs)
      return Math.max(0, Math.round(late))
    }
    try {
      const value = await within(`${JSON.stringify(about)} ${id}`, about.timeoutMs + hangMs, run(id))
      const result = note(value)
      this.history.write({ end: id, at: nowMs(), lateMs: lateMs(), ...(result ? { result } : {}) })
      return { id, beganMs, value }
    } catch (error) {
      if (error instanceof Violation) throw error
      const code = codeIn(error)
      this.history.write({ end: id, at: nowMs(), lateMs: lateMs(), code })
      const wasClosed = closings !== this.#closings && (expected.closed as readonly string[]).includes(code)
      // Whether nobody was there the driver knows.
      if (isAbsent(code)) await delay(absentMs)
      else if (!codes.includes(code) && !wasClosed && !(error instanceof Reconnecting)) {
        const { stack = '' } = error as Error
        throw new Violation('documented errors', `${about.kind} ${id} on ${about.process}: ${code}: ${stack}`)
      }
      return { id, beganMs, error, code }
    }
  }
}
