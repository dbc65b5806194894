/** Hosts that wait for a process, each with one worker started: creating a process then costs no start of Node. */
import { HostProcess, type HostOptions } from './host_process.js'

/** Until a host that was taken is replaced. */
const refillMs = 50

export class HostPool {
  readonly #options: HostOptions
  readonly #size: number
  readonly #waiting: HostProcess[] = []
  #closed = false
  #refill: NodeJS.Timeout | undefined

  constructor(options: HostOptions, size: number) {
    this.#options = options
    this.#size = size
    this.#fill()
  }

  /** A host without a process; the pool starts another in its place. */
  take(): HostProcess {
    const host = this.#waiting.find((waiting) => !waiting.exited) ?? new HostProcess(this.#options)
    this.#forget(host)
    // Later: starting a program takes milliseconds of this thread and all of a core, which the process needs now.
    this.#refill ??= setTimeout(() => {
      this.#refill = undefined
      this.#fill()
    }, refillMs).unref()
    return host
  }

  async close(): Promise<void> {
    this.#closed = true
    clearTimeout(this.#refill)
    await Promise.all(this.#waiting.splice(0).map((host) => host.stop()))
  }

  /** Kills all at once, for the end of the OS process. */
  kill(): void {
    this.#closed = true
    clearTimeout(this.#refill)
    for (const host of this.#waiting.splice(0)) host.kill()
  }

  #fill(): void {
    while (!this.#closed && this.#waiting.length < this.#size) {
      const host = new HostProcess(this.#options)
      this.#waiting.push(host)
      host.once('exit', () => this.#forget(host))
    }
  }

  #forget(host: HostProcess): void {
    const index = this.#waiting.indexOf(host)
    if (index >= 0) this.#waiting.splice(index, 1)
  }
}
