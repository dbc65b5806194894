import { whenUnused } from './memory.js'
import type { Session } from './session.js'

/**
 * Lost sessions that others have replaced. Each is closed, and gives its window and its descriptors back, as soon as none of its
 * memory is in use; left to the garbage collector, it might keep them for as long as its OS process has nothing to do.
 */
export class FormerSessions {
  readonly #sessions = new Set<Session>()

  add(session: Session): void {
    this.#sessions.add(session)
    whenUnused(session, () => {
      this.#sessions.delete(session)
      session.close()
    })
  }

  close(): void {
    for (const session of this.#sessions) session.close()
    this.#sessions.clear()
  }
}
