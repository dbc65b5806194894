/** Keeps a lease alive while it is used. */
import { monotonicMs } from '../clock.js'
import { LeaseError } from '../errors.js'

/** How often the use is looked at, parts of the time to live: what is called later than that before the end is too late. */
const looksPerTtl = 8
/** It is renewed at the earliest when this part of its time to live has passed, and by a blocking call after that part. */
const earliest = 1 / 4
const latest = 1 / 2
const minLookMs = 5
const maxLookMs = 60_000
/** Timers take no longer times. */
const maxAskMs = 30_000

export interface RenewalOf {
  /** Asks the host; the time to live it grants, milliseconds. */
  renew(ttlMs: number, timeoutMs: number): Promise<number>
  renewSync(ttlMs: number, timeoutMs: number): number
  /** Calls made until now, and whether some are in flight. */
  use(): { readonly calls: number; readonly busy: boolean }
  /** It turned out that the lease has ended. */
  ended(error: LeaseError): void
}

export class LeaseRenewal {
  readonly #of: RenewalOf
  readonly #automatic: boolean
  #ttlMs: number
  #grantedMs: number
  #callsThen = 0
  #timer: NodeJS.Timeout | undefined
  #renewing = false
  #stopped = false
  /** When a program that only makes blocking calls has to renew, on the clock of `monotonicMs`; never: Infinity. */
  dueMs = Infinity

  /** @param takenMs  when its time began, at the earliest */
  constructor(of: RenewalOf, ttlMs: number, takenMs: number, automatic: boolean) {
    this.#of = of
    this.#automatic = automatic
    this.#ttlMs = ttlMs
    this.#grantedMs = takenMs
    this.#granted(ttlMs, takenMs)
  }

  /** When it expires unless it is renewed, at the earliest; on the clock of `monotonicMs`. */
  get expiresMs(): number {
    return this.#grantedMs + this.#ttlMs
  }

  async renew(ttlMs = this.#ttlMs): Promise<void> {
    const { calls } = this.#of.use()
    const askedMs = monotonicMs()
    this.#granted(await this.#of.renew(ttlMs, maxAskMs), askedMs, calls)
  }

  /** Between two blocking calls, when the timer may never get its turn. */
  renewSync(): void {
    const { calls } = this.#of.use()
    const askedMs = monotonicMs()
    // Not with every call from now on, should it fail.
    this.dueMs = askedMs + this.#lookMs()
    try {
      this.#granted(this.#of.renewSync(this.#ttlMs, Math.min(this.#ttlMs, maxAskMs)), askedMs, calls)
    } catch (error) {
      this.#failed(error)
    }
  }

  stop(): void {
    this.#stopped = true
    clearInterval(this.#timer)
    this.#timer = undefined
    this.dueMs = Infinity
  }

  #granted(ttlMs: number, askedMs: number, calls = 0): void {
    const changed = ttlMs !== this.#ttlMs || !this.#timer
    this.#ttlMs = ttlMs
    this.#grantedMs = askedMs
    this.#callsThen = calls
    if (!this.#automatic || this.#stopped) return
    this.dueMs = askedMs + ttlMs * latest
    if (!changed) return
    clearInterval(this.#timer)
    this.#timer = setInterval(() => void this.#look(), this.#lookMs()).unref()
  }

  #lookMs(): number {
    return Math.min(Math.max(this.#ttlMs / looksPerTtl, minLookMs), maxLookMs)
  }

  async #look(): Promise<void> {
    if (this.#renewing || monotonicMs() < this.#grantedMs + this.#ttlMs * earliest) return
    const { calls, busy } = this.#of.use()
    if (!busy && calls === this.#callsThen) return
    this.#renewing = true
    try {
      await this.renew()
    } catch (error) {
      this.#failed(error)
    } finally {
      this.#renewing = false
    }
  }

  /** What does not say that the lease has ended may get better until the next look. */
  #failed(error: unknown): void {
    if (error instanceof LeaseError) this.#of.ended(error)
  }
}
