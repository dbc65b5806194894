/** What RDMA is measured beside, in turns with calls over it: TCP without praas, and the programs of perftest. */
import { carriers, openFloor } from './floors.js'
import { perftestFor, perftestSampler, withoutPerftest } from './perftest.js'
import type { Pinning } from './pinning.js'
import type { PlannedSubject } from './plan.js'
import { chosenRdma } from './rdma_choice.js'
import type { Labels, Mode } from './result.js'

export function besideVerbs(mode: Mode, bytes: number, pinning: Pinning | undefined): PlannedSubject[] {
  return [
    tcpBeside(mode, bytes, pinning),
    ...(withoutPerftest() === undefined ? perftestBeside(mode, bytes, pinning) : []),
  ]
}

function labelsOf(transport: 'tcp' | 'verbs', mode: Mode, client: string, bytes: number): Labels {
  return {
    ...{ suite: 'invoke', transport, path: null, mode, kind: null, function: 'round trip', call: null, client, bytes },
    concurrency: 1,
  }
}

/** The same bytes over TCP, both sides doing as the mode says. */
function tcpBeside(mode: Mode, bytes: number, pinning: Pinning | undefined): PlannedSubject {
  const name = carriers.tcp[mode]
  const open: PlannedSubject['open'] = async () => {
    const [part] = await openFloor([{ name, bytes }], bytes, pinning)
    if (!part) throw new Error(`praas-floor has no ${name}`)
    return part.sampler
  }
  return { labels: labelsOf('tcp', mode, `praas-floor ${name}`, bytes), open }
}

function perftestBeside(mode: Mode, bytes: number, pinning: Pinning | undefined): PlannedSubject[] {
  const choice = chosenRdma()
  return perftestFor(mode).map((program) => ({
    labels: labelsOf('verbs', mode, `${program}, twice its time`, bytes),
    open: async () => perftestSampler({ program, bytes, mode, choice, pinning }),
  }))
}
