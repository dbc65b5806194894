/** The clients of a campaign: OS processes that are replaced when they are killed, and do what they are told together. */
import { fork, type ChildProcess } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as delay } from 'node:timers/promises'
import { nowMs } from './clock.js'
import type { Clients } from './injector.js'
import type { ClientTask, FromClient, ToClient } from './plan.js'

type Task = Omit<ClientTask, 'client' | 'incarnation'>

interface Member {
  child: ChildProcess
  incarnation: number
  /** What it has said last. */
  said: FromClient['type'] | undefined
}

export class ClientGroup implements Clients {
  readonly #task: Task
  readonly #violation: (check: string, text: string) => void
  readonly #members: Member[] = []
  #order: ToClient['type'] = 'resume'
  #failed = false
  #closing = false

  constructor(task: Task, violation: (check: string, text: string) => void) {
    this.#task = task
    this.#violation = (check, text) => {
      this.#failed = true
      violation(check, text)
    }
    for (let client = 0; client < task.clients; client++) this.#members.push(this.#start(client, 0))
  }

  get count(): number {
    return this.#members.length
  }

  /** What the clients did until they were verified last. */
  get histories(): string[] {
    return this.#members.map((_, client) => join(this.#task.folder, `client-${client}.jsonl.checked`))
  }

  pid(client: number): number | undefined {
    const child = this.#members[client]?.child
    return child?.connected === true ? child.pid : undefined
  }

  tell(order: ToClient['type']): void {
    this.#order = order
    for (const member of this.#members) {
      member.said = undefined
      if (member.child.connected) member.child.send({ type: order })
    }
  }

  /** Whether all have answered in time, and nothing was wrong. */
  async all(order: ToClient['type'], answer: FromClient['type'], withinMs: number): Promise<boolean> {
    this.tell(order)
    const deadline = nowMs() + withinMs
    while (!this.#failed && !this.#members.every(({ said }) => said === answer)) {
      if (nowMs() > deadline) {
        const silent = this.#members.flatMap(({ said }, client) => (said === answer ? [] : [client]))
        this.#violation('nothing hangs', `clients ${silent.join(', ')} did not say ${answer} within ${withinMs} ms`)
      }
      await delay(20)
    }
    return !this.#failed
  }

  /** Kills them. One whose memory the kernel cannot take back, from a device for instance, never ends. */
  async close(withinMs: number): Promise<void> {
    this.#closing = true
    for (const { child } of this.#members) child.kill('SIGKILL')
    const running = ({ child }: Member): boolean => child.exitCode === null && child.signalCode === null
    const deadline = nowMs() + withinMs
    while (this.#members.some(running) && nowMs() < deadline) await delay(10)
    for (const { child } of this.#members.filter(running))
      this.#violation('nothing hangs', `OS process ${child.pid} was killed and does not end within ${withinMs} ms`)
  }

  #start(client: number, incarnation: number): Member {
    const task: ClientTask = { ...this.#task, client, incarnation }
    const program = fileURLToPath(new URL('client.js', import.meta.url))
    const child = fork(program, [JSON.stringify(task)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    const member: Member = { child, incarnation, said: undefined }
    child.on('message', (message: FromClient) => {
      if (message.type === 'violation') this.#violation(message.check, `client ${client}: ${message.text}`)
      else member.said = message.type
    })
    child.on('exit', (code, signal) => {
      if (this.#closing) return
      if (signal !== 'SIGKILL') this.#violation('nobody dies unasked', `client ${client} ended with ${signal ?? code}`)
      if (this.#failed) return
      const next = this.#start(client, incarnation + 1)
      this.#members[client] = next
      if (this.#order === 'pause') next.child.send({ type: 'pause' })
    })
    return member
  }
}
