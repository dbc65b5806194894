/** Kills and stops hosts, workers, clients and the agent at random instants. */
import { setTimeout as delay } from 'node:timers/promises'
import type { ProcessDescription, WorkerDescription } from '../../src/control.js'
import { nowMs } from './clock.js'
import type { Gap } from './agent_process.js'
import { disasterOf, processes as served, type Disaster } from './plan.js'
import { HostKills } from './host_kills.js'
import type { Random } from './random.js'

export interface Stop {
  /** Of a client; undefined for others. */
  readonly client: number | undefined
  readonly fromMs: number
  toMs: number
}

export interface Clients {
  readonly count: number
  /** Undefined while it is being replaced. */
  pid(client: number): number | undefined
}

export interface Processes {
  /** None while nobody serves them. */
  describe(): Promise<readonly ProcessDescription[]>
  /** Stops one, and creates it again. */
  restart(id: string): Promise<void>
}

export interface Agent {
  /** Undefined while it is being replaced. */
  readonly pid: number | undefined
  replace(): Promise<void>
}

const weights = {
  ...{ 'kill worker': 30, 'kill leased worker': 12, 'kill host': 7, 'kill client': 6 },
  ...{ 'stop worker': 14, 'stop leased worker': 8, 'stop host': 5, 'stop client': 5, 'stop agent': 1 },
}
type Fault = keyof typeof weights | Disaster

/** Longest time that something stands still. */
const maxStopMs = 2_500

export class Injector {
  readonly counts = new Map<Fault, number>()
  readonly stops: Stop[] = []
  /** OS process ids of hosts, and when they were killed. */
  readonly killedHosts = new Map<number, number>()
  /** While a process was stopped. */
  readonly absences: Gap[] = []
  /** The process that is stopped and created again: what it starts with is left alone. */
  #stopping: string | undefined
  readonly hostKills = new HostKills()
  readonly #random: Random
  readonly #meanPauseMs: number
  readonly #processes: Processes
  readonly #agent: Agent
  readonly #clients: Clients
  readonly #note: (text: string) => void
  /** Of processes whose starting worker was killed: the workers that were ready then. */
  readonly #readyThen = new Map<string, ReadonlySet<number>>()

  constructor(
    random: Random,
    meanPauseMs: number,
    processes: Processes,
    agent: Agent,
    clients: Clients,
    note: (text: string) => void,
  ) {
    this.#random = random
    this.#meanPauseMs = meanPauseMs
    this.#processes = processes
    this.#agent = agent
    this.#clients = clients
    this.#note = note
  }

  /**
   * Until then, or while nothing is wrong; afterwards nothing is stopped any more, and there is an agent. Rejects, then, with what
   * a disaster failed of.
   *
   * @param epoch  from 0 on: what is drawn for it does not depend on how far others got
   */
  async run(epoch: number, untilMs: number, wrong: () => boolean): Promise<void> {
    const ending: Promise<void>[] = []
    let failed = false
    const begin = (what: Promise<void>): void => {
      ending.push(what)
      what.catch(() => (failed = true))
    }
    try {
      await this.#harm(epoch, untilMs, () => failed || wrong(), begin)
    } finally {
      await Promise.allSettled(ending)
    }
    await Promise.all(ending)
  }

  async #harm(epoch: number, endMs: number, wrong: () => boolean, begin: (what: Promise<void>) => void): Promise<void> {
    const random = this.#random.fork(epoch)
    const fromMs = nowMs()
    const untilMs = Math.max(endMs, fromMs) // an epoch may be over before it begins
    const disaster = disasterOf(epoch)
    const ofDisaster = random.fork('disaster')
    let disasterMs = disaster === 'none' ? Infinity : fromMs + ofDisaster.next() * (untilMs - fromMs)
    for (let drawn = 0; !wrong(); drawn++) {
      const nextMs = nowMs() + random.pause(this.#meanPauseMs)
      const fault = random.weighted(weights)
      const which = random.fork(drawn)
      if (disasterMs <= Math.min(nextMs, untilMs)) {
        await until(disasterMs)
        disasterMs = Infinity
        begin(disaster === 'kill agent' ? this.#killAgent() : this.#stopProcess(ofDisaster.pick(served).id))
      }
      if (nextMs >= untilMs) break
      await until(nextMs)
      const victim = await this.#victim(fault, which)
      if (victim === undefined) continue
      this.#count(fault)
      this.#note(`${fault} ${victim.pid} of ${victim.of}`)
      if (fault === 'kill host') {
        this.killedHosts.set(victim.pid, nowMs())
        this.hostKills.killed(victim.of, victim.pid)
      }
      if (fault.startsWith('kill')) send(victim.pid, 'SIGKILL')
      else begin(this.#stop(victim.pid, victim.client, which.integer(1, maxStopMs)))
    }
    if (!wrong()) await until(untilMs)
  }

  async #killAgent(): Promise<void> {
    for (const { pid } of await this.#processes.describe()) if (pid !== undefined) this.killedHosts.set(pid, nowMs())
    this.#count('kill agent')
    this.#note(`kill agent ${this.#agent.pid}`)
    await this.#agent.replace()
    this.hostKills.forgetAll()
    this.#note(`agent ${this.#agent.pid} serves the processes`)
  }

  async #stopProcess(id: string): Promise<void> {
    const pid = (await this.#processes.describe()).find((process) => process.id === id)?.pid
    const gap = { fromMs: nowMs(), toMs: Infinity }
    this.absences.push(gap)
    if (pid !== undefined) this.killedHosts.set(pid, gap.fromMs)
    this.#stopping = id
    this.#count('stop process')
    this.#note(`stop process ${id}`)
    await this.#processes.restart(id)
    this.hostKills.forget(id)
    this.#stopping = undefined
    gap.toMs = nowMs()
    this.#note(`process ${id} is there again`)
  }

  #count(fault: Fault): void {
    this.counts.set(fault, (this.counts.get(fault) ?? 0) + 1)
  }

  async #victim(fault: Fault, random: Random): Promise<{ pid: number; of: string; client?: number } | undefined> {
    const { pid: agent } = this.#agent
    if (fault.endsWith('agent')) return agent === undefined ? undefined : { pid: agent, of: 'all processes' }
    if (fault.endsWith('client')) {
      const client = random.integer(0, this.#clients.count - 1)
      const pid = this.#clients.pid(client)
      return pid === undefined ? undefined : { pid, of: `client ${client}`, client }
    }
    const described = (await this.#processes.describe()).filter(({ id }) => id !== this.#stopping)
    if (described.length === 0) return undefined
    const { id, pid, workers } = random.pick(described)
    if (fault.endsWith('host')) return pid === undefined ? undefined : { pid, of: id }
    const leased = fault.endsWith('leased worker')
    const those = workers.filter((worker) => worker.leased === leased)
    if (those.length === 0) return undefined
    const { pid: worker, state } = random.pick(those)
    if (!leased && fault.startsWith('kill') && state !== 'ready' && !this.#mayKillStarting(id, workers))
      return undefined
    return { pid: worker, of: id }
  }

  /** A process fails when several of its workers in a row do not come up: another one has to, between two such kills. */
  #mayKillStarting(id: string, workers: readonly WorkerDescription[]): boolean {
    const ready = workers.filter(({ state }) => state === 'ready').map(({ pid }) => pid)
    const then = this.#readyThen.get(id)
    if (then && ready.every((pid) => then.has(pid))) return false
    this.#readyThen.set(id, new Set(ready))
    return true
  }

  async #stop(pid: number, client: number | undefined, forMs: number): Promise<void> {
    const stop = { client, fromMs: nowMs(), toMs: Infinity }
    this.stops.push(stop)
    send(pid, 'SIGSTOP')
    await delay(forMs)
    send(pid, 'SIGCONT')
    stop.toMs = nowMs()
  }
}

const until = (ms: number): Promise<void> => delay(Math.max(0, ms - nowMs()))

/** It may have ended meanwhile. */
function send(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal)
  } catch (error) {
    if ((error as { code?: string }).code !== 'ESRCH') throw error
  }
}
