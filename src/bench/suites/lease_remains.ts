/** What leases that were taken, used, and given back or left to expire have left in host and client. */
import { setTimeout as delay } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { Process } from '../../client/process.js'
import { PraasError } from '../../errors.js'
import { apps, type BenchCluster } from '../bench_cluster.js'
import { descendantsOf, mappedWindows, openFiles, privateBytes } from '../os_usage.js'
import type { Progress } from '../progress.js'
import type { Check, Quantity } from '../result.js'
import type { LeaseFindings, LeaseOptions, LeaseWay } from './lease.js'

/** One of so many expires; the last is given back. */
const expiresEvery = 10
/** After how long, milliseconds. */
const shortTtlMs = 20
/** Enough for every place that a host makes when it is first needed. */
const settlingLeases = 10 * expiresEvery
/** Of what is made when it is first needed, and kept. What every lease left, or every one that expires, would be more. */
const mostMade = 4
/** For what ends by itself. */
const settleMs = 10_000
const lookEveryMs = 100

interface Remains {
  readonly 'open files of the host': number
  readonly 'windows in the memory of the host': number
  readonly 'OS processes of the host': number
  readonly 'open files of the client': number
  readonly 'windows in the memory of the client': number
}

export async function leaseRemains(
  bench: BenchCluster,
  { kind, transport }: LeaseWay,
  { leases }: LeaseOptions,
  progress: Progress,
): Promise<LeaseFindings> {
  const client = await bench.connect(transport)
  const served = await client.process(`remains-${transport}-${kind}`, { app: apps[`${kind}-endless`] })
  const host = (await served.connect()).hostPid
  for (let index = 0; index < settlingLeases; index++) await useLease(served, transport, index)
  const before = await settled(host)
  const bytesBefore = privateBytes(host)
  const began = performance.now()
  for (let index = 0; index < leases; index++) {
    await useLease(served, transport, index)
    progress.step(`${transport} ${kind} lease`)
  }
  const elapsedMs = performance.now() - began
  const after = await settled(host, before)
  const most = Math.min(mostMade, Math.floor(leases / (2 * expiresEvery)))
  const what = `${leases} ${transport} ${kind} leases taken, used and ended`
  const more = (name: keyof Remains): Check => {
    return { suite: 'lease', name: `${what}: more ${name}`, value: after[name] - before[name], unit: '', most }
  }
  const quantities: Quantity[] = [
    { suite: 'lease', name: `${what}: each`, value: elapsedMs / leases, unit: 'ms' },
    { suite: 'lease', name: `${what}: more memory of the host`, value: privateBytes(host) - bytesBefore, unit: 'B' },
  ]
  await served.stop()
  return { quantities, checks: keys(before).map(more) }
}

async function useLease(served: Process, transport: LeaseWay['transport'], index: number): Promise<void> {
  const expires = index % expiresEvery === expiresEvery >> 1
  let onEnd: () => void = () => undefined
  const ended = new Promise<void>((resolve) => (onEnd = resolve))
  await using lease = await served.lease({
    ...{ transport, hotMs: 0, ttlMs: 60_000, renew: false },
    onNotice: ({ event }) => {
      if (event === 'ended') onEnd()
    },
  })
  await lease.invoke('null', new Uint8Array(64))
  if (!expires) return
  await lease.renew(shortTtlMs)
  const given = new AbortController()
  const late = delay(settleMs, undefined, { signal: given.signal }).then(() => {
    throw new PraasError('ERR_UNSUPPORTED', `a lease of ${shortTtlMs} ms has not ended after ${settleMs} ms`)
  })
  late.catch(() => undefined)
  await Promise.race([ended, late])
  given.abort()
}

/** What nobody refers to any more is no question: when it goes is the garbage collector's business. */
function collectGarbage(): void {
  setFlagsFromString('--expose-gc')
  const collect = runInNewContext('gc') as () => void
  collect()
}

/** When nothing changes any more; with `wanted`, as soon as nothing is more than that. */
async function settled(host: number, wanted?: Remains): Promise<Remains> {
  const end = performance.now() + settleMs
  let last = remainsOf(host)
  for (let calm = 0; performance.now() < end && calm < 5;) {
    if (wanted && keys(last).every((key) => last[key] <= wanted[key])) return last
    await delay(lookEveryMs)
    const now = remainsOf(host)
    calm = !wanted && keys(now).every((key) => now[key] === last[key]) ? calm + 1 : 0
    last = now
  }
  return last
}

function remainsOf(host: number): Remains {
  collectGarbage()
  return {
    'open files of the host': openFiles(host),
    'windows in the memory of the host': mappedWindows(host),
    'OS processes of the host': descendantsOf(host).length,
    'open files of the client': openFiles(process.pid),
    'windows in the memory of the client': mappedWindows(process.pid),
  }
}

function keys(remains: Remains): (keyof Remains)[] {
  return Object.keys(remains) as (keyof Remains)[]
}
