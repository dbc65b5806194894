/**
 * What some calls are measured beside, in turns with them, apart from their floor: RDMA beside TCP without praas and the
 * programs of perftest, warm leases over shared memory beside the way to sleep that they use.
 */
import { carriers, openFloor, signalOf, type FloorSpec } from './floors.js'
import { perftestFor, perftestSampler, withoutPerftest } from './perftest.js'
import type { Pinning } from './pinning.js'
import type { PlannedSubject } from './plan.js'
import { chosenRdma } from './rdma_choice.js'
import type { Labels, Mode, Transport } from './result.js'

export function besideVerbs(mode: Mode, bytes: number, pinning: Pinning | undefined): PlannedSubject[] {
  return [
    floorBeside({ name: carriers.tcp[mode], bytes }, labelsOf('tcp', mode, bytes), pinning),
    ...(withoutPerftest() === undefined ? perftestBeside(mode, bytes, pinning) : []),
  ]
}

/** Both sides can wait for an eventfd together with a socket, as they cannot for a futex. */
export function besideWarmWindow(bytes: number, pinning: Pinning | undefined): PlannedSubject {
  return floorBeside({ name: 'eventfd', bytes: signalOf(bytes) }, labelsOf('shm', 'warm', bytes), pinning)
}

type UnnamedLabels = Omit<Labels, 'client'>

function labelsOf(transport: Transport, mode: Mode, bytes: number): UnnamedLabels {
  return {
    ...{ suite: 'invoke', transport, path: null, mode, kind: null, function: 'round trip', call: null, bytes },
    concurrency: 1,
  }
}

/** Another floor, in the place of a subject. */
function floorBeside(spec: FloorSpec, labels: UnnamedLabels, pinning: Pinning | undefined): PlannedSubject {
  const open: PlannedSubject['open'] = async () => {
    const [part] = await openFloor([spec], labels.bytes, pinning)
    if (!part) throw new Error(`praas-floor has no ${spec.name}`)
    return part.sampler
  }
  return { labels: { ...labels, client: `praas-floor ${spec.name}` }, open }
}

function perftestBeside(mode: Mode, bytes: number, pinning: Pinning | undefined): PlannedSubject[] {
  const choice = chosenRdma()
  return perftestFor(mode).map((program) => ({
    labels: { ...labelsOf('verbs', mode, bytes), client: `${program}, twice its time` },
    open: async () => perftestSampler({ program, bytes, mode, choice, pinning }),
  }))
}
