/** The agent of a campaign as its driver sees it: killed now and then, and replaced at once. */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { nowMs } from './clock.js'
import { OwnDescriptors } from './leftovers.js'
import type { AgentTask, FromAgent } from './plan.js'
import { Violation, within } from './violation.js'

/** While nobody served the processes. */
export interface Gap {
  readonly fromMs: number
  toMs: number
}

export class AgentProcess {
  readonly gaps: Gap[] = []
  readonly #task: AgentTask
  readonly #limitMs: number
  readonly #violation: (check: string, text: string) => void
  #child: ChildProcess | undefined
  #descriptors = new OwnDescriptors()
  #mayEnd = false

  /** @param limitMs  of a start, and of an end */
  constructor(task: AgentTask, limitMs: number, violation: (check: string, text: string) => void) {
    this.#task = task
    this.#limitMs = limitMs
    this.#violation = violation
  }

  /** Undefined while it is being replaced. */
  get pid(): number | undefined {
    return this.#child?.pid
  }

  get descriptors(): OwnDescriptors {
    return this.#descriptors
  }

  async start(): Promise<void> {
    const program = fileURLToPath(new URL('agent.js', import.meta.url))
    const child = fork(program, [JSON.stringify(this.#task)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
    this.#mayEnd = false
    child.on('exit', (code, signal) => {
      if (!this.#mayEnd) this.#violation('nobody dies unasked', `the agent ended with ${signal ?? code}`)
    })
    try {
      const ended = once(child, 'exit').then(() => Promise.reject(new Violation('the agent starts', 'it has ended')))
      const first = Promise.race([once(child, 'message'), ended])
      const [said] = (await within('the agent starts', this.#limitMs, first)) as [FromAgent]
      if (said.type === 'failed') throw new Violation('state outlives the agent', said.text)
    } catch (error) {
      this.#mayEnd = true
      child.kill('SIGKILL')
      throw error
    }
    this.#descriptors = new OwnDescriptors(child.pid)
    this.#child = child
  }

  /** Kills it and starts the next one. */
  async replace(): Promise<void> {
    const gap = { fromMs: nowMs(), toMs: Infinity }
    this.gaps.push(gap)
    await this.#end((child) => child.kill('SIGKILL'))
    await this.start()
    gap.toMs = nowMs()
  }

  /** Its processes end, and their state. */
  async close(): Promise<void> {
    await this.#end((child) => child.send({ type: 'close' }))
  }

  async #end(ask: (child: ChildProcess) => void): Promise<void> {
    const child = this.#child
    if (!child) return
    this.#child = undefined
    this.#mayEnd = true
    const ended = once(child, 'exit')
    ask(child)
    await within('the agent ends', this.#limitMs, ended)
  }
}
