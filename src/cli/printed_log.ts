/**
 * What the workers of a served process print, on the standard output of who serves it. That it cannot be read, or nobody reads it
 * here, is no reason to end what is served.
 */
import { once } from 'node:events'
import { setTimeout as delay } from 'node:timers/promises'
import type { Cluster } from '../client/cluster.js'
import { codeOf, messageOf } from '../errors.js'
import { note } from './output.js'

const retryMs = 1_000
const mostAtFirstBytes = 64 * 1024

/** Until `signal` aborts. Never rejects. */
export async function printLog(cluster: Cluster, id: string, signal: AbortSignal): Promise<void> {
  let said = ''
  let tailBytes = mostAtFirstBytes
  while (!signal.aborted) {
    try {
      for await (const text of cluster.logs(id, { follow: true, tailBytes, signal })) {
        said = ''
        if (!process.stdout.write(text)) await once(process.stdout, 'drain', { signal })
      }
    } catch (error) {
      if (signal.aborted) break
      const ended = codeOf(error) === 'ERR_PROCESS_UNKNOWN'
      const why = ended
        ? `process ${id} has ended; the cluster goes on without it`
        : `what process ${id} prints cannot be shown now: ${messageOf(error)}`
      if (why !== said) note(why)
      said = why
      // The next process of the name has a log of its own; of this one, what was there before has been printed.
      tailBytes = ended ? mostAtFirstBytes : 1
      await delay(retryMs, undefined, { signal }).catch(() => undefined)
    }
  }
}

/** Aborts when nobody reads standard output any more, or nothing fits where it goes to. */
export function lossOfStdout(): AbortSignal {
  const lost = new AbortController()
  process.stdout.removeAllListeners('error')
  process.stdout.on('error', (error: Error) => {
    if (!lost.signal.aborted) note(`standard output: ${error.message}; \`praas logs\` shows what workers print`)
    lost.abort()
  })
  return lost.signal
}
