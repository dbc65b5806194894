/** How long after its time a lease ends whose worker runs a function that never returns, and until its holder knows. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Process } from '../../client/process.js'
import { codeOf, messageOf, PraasError } from '../../errors.js'
import { apps, type BenchCluster } from '../bench_cluster.js'
import { isRunning } from '../os_usage.js'
import type { Progress } from '../progress.js'
import type { Check, Quantity } from '../result.js'
import type { LeaseFindings, LeaseOptions, LeaseWay } from './lease.js'

/** How late a lease may end. */
const mostLateMs = 50
/** Until one that does not end at all is given up, after its expiry. */
const patienceMs = 10_000
/** When its worker is looked at from, before it, and how often. */
const aheadMs = 20
const lookEveryMs = 1

/** After the expiry, milliseconds. */
interface End {
  /** Until the worker was gone. */
  readonly gone: number
  /** Until the client was told. */
  readonly told: number
  /** Until the call in flight had failed. */
  readonly failed: number
  /** What it has failed with. */
  readonly code: string
}

export async function leaseEnds(
  bench: BenchCluster,
  { kind, transport }: LeaseWay,
  { samples, ttlMs }: LeaseOptions,
  progress: Progress,
): Promise<LeaseFindings> {
  const client = await bench.connect(transport)
  const served = await client.process(`ends-${transport}-${kind}`, { app: apps[`${kind}-endless`] })
  const ends: End[] = []
  for (let sample = 0; sample < samples; sample++) {
    ends.push(await endOf(served, transport, ttlMs))
    progress.step(`${transport} ${kind} lease of ${ttlMs} ms`)
  }
  await served.stop()
  const what = `${transport} ${kind} lease of ${ttlMs} ms whose worker never returns`
  const quantity = (name: string, value: number): Quantity => {
    return { suite: 'lease', name: `${what}: ${name}`, value, unit: 'ms' }
  }
  const check = (name: string, value: number, most: number): Check => ({ ...quantity(name, value), most })
  const sorted = (of: 'gone' | 'told' | 'failed'): number[] => ends.map((end) => end[of]).sort((a, b) => a - b)
  const [gone, told, failed] = [sorted('gone'), sorted('told'), sorted('failed')]
  const wrong = ends.filter(({ code }) => code !== 'ERR_LEASE_EXPIRED').map(({ code }) => code)
  const last = (times: readonly number[]): number => times.at(-1) ?? 0
  return {
    quantities: [
      quantity('expiry to the end of the worker, median', middle(gone)),
      quantity('expiry to the notice of the holder, median', middle(told)),
      quantity('expiry to the failure of the call, median', middle(failed)),
    ],
    checks: [
      check('expiry to the end of the worker, longest', last(gone), mostLateMs),
      check('expiry to the notice of the holder, longest', last(told), mostLateMs),
      check('expiry to the failure of the call, longest', last(failed), mostLateMs),
      check('end before the expiry, most', Math.max(0, ...gone.map((ms) => -ms)), 0),
      { suite: 'lease', name: wrongName(what, wrong), value: wrong.length, unit: '', most: 0 },
    ],
  }
}

function wrongName(what: string, codes: readonly string[]): string {
  const which = [...new Set(codes)].join(', ')
  return `${what}: calls that fail otherwise than with ERR_LEASE_EXPIRED${which === '' ? '' : ` (${which})`}`
}

function middle(sorted: readonly number[]): number {
  return sorted[sorted.length >> 1] ?? 0
}

async function endOf(served: Process, transport: LeaseWay['transport'], ttlMs: number): Promise<End> {
  let onEnd: (at: number) => void = () => undefined
  const told = new Promise<number>((resolve) => (onEnd = resolve))
  await using lease = await served.lease({
    ...{ transport, hotMs: 0, ttlMs: 60_000, renew: false },
    onNotice: ({ event }) => {
      if (event === 'ended') onEnd(performance.now())
    },
  })
  const [worker] = lease.workers
  if (!worker) throw new PraasError('ERR_UNSUPPORTED', 'the lease has no worker')
  // So that what it takes to start a worker, and to load its functions, is over.
  await lease.invoke('null', new Uint8Array(1))
  // Its time begins after this moment: what is measured from here is not too short.
  const renewed = performance.now()
  await lease.renew(ttlMs)
  const expires = renewed + ttlMs
  const failed = lease.invoke('forever', new Uint8Array(1)).then(
    () => {
      throw new PraasError('ERR_UNSUPPORTED', 'a function that never returns has returned')
    },
    (error: unknown) => ({ at: performance.now(), code: codeOf(error) ?? messageOf(error) }),
  )
  failed.catch(() => undefined)
  await delay(Math.max(0, expires - aheadMs - performance.now()))
  while (isRunning(worker.pid) && performance.now() < expires + patienceMs) await delay(lookEveryMs)
  const gone = performance.now()
  const given = AbortSignal.timeout(patienceMs)
  const late = new Promise<never>((_, reject) => {
    given.addEventListener('abort', () =>
      reject(new PraasError('ERR_UNSUPPORTED', `nobody was told of the end of a lease ${patienceMs} ms after it`)),
    )
  })
  const [toldAt, { at: failedAt, code }] = await Promise.race([Promise.all([told, failed]), late])
  return { gone: gone - expires, told: toldAt - expires, failed: failedAt - expires, code }
}
