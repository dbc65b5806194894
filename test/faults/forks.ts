/** OS processes that functions leave behind: they end with their worker, whatever ends that, unless they leave its group. */
import type { Gap } from './agent_process.js'
import { events, type Entry } from './journal.js'
import { runsWith } from './leftovers.js'

/** Longer than anything comes to rest. */
export const childSeconds = 200

/**
 * Those whose worker has ended. What was left before the agent died is nobody's: the next one cannot tell it from strangers.
 *
 * @param text  what only OS processes of the campaign have in their environment
 */
export function orphans(
  journal: readonly Entry[],
  text: string,
  workers: ReadonlySet<number>,
  agentDeaths: readonly Gap[],
): string[] {
  const owned = journal.filter(
    ({ event, atMs }) => event === events.forked && !agentDeaths.some(({ toMs }) => atMs < toMs),
  )
  return owned
    .filter(({ pid, subject }) => !workers.has(pid) && runsWith(subject, text))
    .map(({ id, pid, subject }) => `OS process ${subject} of call ${id}: its worker ${pid} has ended`)
}

/** @returns how many functions have left behind */
export function endForks(journal: readonly Entry[], text: string): number {
  const forks = journal.filter(({ event }) => event === events.forked)
  for (const { subject } of forks) if (runsWith(subject, text)) process.kill(subject, 'SIGKILL')
  return forks.length
}
