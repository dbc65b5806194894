/** How often hosts were killed, by process, for as long as praas counts their restarts. */
export class HostKills {
  readonly #kills = new Map<string, number>()
  readonly #last = new Map<string, number>()

  /** @param host  As long as its agent has not noticed it may be killed once more, and is replaced once. */
  killed(process: string, host: number): void {
    if (this.#last.get(process) === host) return
    this.#last.set(process, host)
    this.#kills.set(process, (this.#kills.get(process) ?? 0) + 1)
  }

  /** It was created again: its restarts are counted from 0 on. */
  forget(process: string): void {
    this.#kills.delete(process)
  }

  /** Another agent counts. */
  forgetAll(): void {
    this.#kills.clear()
  }

  /** Of what was replaced more often than killed. */
  unasked(described: readonly { readonly id: string; readonly restarts: number }[]): string[] {
    return described
      .map(({ id, restarts }) => ({ id, restarts, kills: this.#kills.get(id) ?? 0 }))
      .filter(({ restarts, kills }) => restarts > kills)
      .map(({ id, restarts, kills }) => `${restarts} hosts of ${id} were replaced, and ${kills} killed`)
  }
}
