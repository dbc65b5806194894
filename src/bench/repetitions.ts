/** How often what is measured. */

export interface Repetitions {
  /** Recorded operations of small payloads, in all rounds together. */
  readonly samples: number
  readonly rounds: number
}

/** Payload that one batch moves at most; its fewest operations come first. */
const batchBytes = 256 * 2 ** 20
const fewest = 20

/** Recorded operations per round: fewer for payloads that take long. */
export function perRound({ samples, rounds }: Repetitions, bytes: number): number {
  const wanted = Math.max(1, Math.ceil(samples / rounds))
  return Math.min(wanted, Math.max(fewest, Math.floor(batchBytes / Math.max(1, bytes))))
}
