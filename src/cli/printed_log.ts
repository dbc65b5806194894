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

/** Until `signal` aborts. Never rejects. */
export async function printLog(cluster: Cluster, id: string, signal: AbortSignal): Promise<void> {
  const until = AbortSignal.any([signal, lossOfStdout()])
  let said = ''
  // After a failure from the end on: what was there before has been printed.
  for (let tailBytes = 64 * 1024; !until.aborted; tailBytes = 1) {
    try {
      for await (const text of cluster.logs(id, { follow: true, tailBytes, signal: until })) {
        said = ''
        if (!process.stdout.write(text)) await once(process.stdout, 'drain', { signal: until })
      }
    } catch (error) {
      if (until.aborted) break
      const why = whyNot(id, error)
      if (why !== said) note(why)
      said = why
      await delay(retryMs, undefined, { signal: until }).catch(() => undefined)
    }
  }
}

function whyNot(id: string, error: unknown): string {
  return codeOf(error) === 'ERR_PROCESS_UNKNOWN'
    ? `process ${id} has ended; the cluster goes on without it`
    : `what process ${id} prints cannot be shown now: ${messageOf(error)}`
}

/** Aborts when nobody reads standard output any more, or nothing fits where it goes to. */
function lossOfStdout(): AbortSignal {
  const lost = new AbortController()
  process.stdout.removeAllListeners('error')
  process.stdout.on('error', (error: Error) => {
    if (!lost.signal.aborted) note(`standard output: ${error.message}; \`praas logs\` shows what workers print`)
    lost.abort()
  })
  return lost.signal
}
