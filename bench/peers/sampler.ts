/** Measures batches of one operation when asked, so that several take turns within one run. Idle between batches. */
export interface Sampler {
  /**
   * Runs an unrecorded warm-up, then `count` recorded operations.
   *
   * @param count  1 or more.
   */
  sample(count: number): Promise<Batch>
  close(): Promise<void>
}

export interface Batch {
  /** Of the recorded part, nanoseconds. */
  readonly elapsedNs: number
  /** Nanoseconds of each operation. */
  readonly samples: Float64Array
}

export interface SamplerOptions {
  /** Size of input and of result. */
  readonly bytes: number
  /** Operations at a time, 1 or more. */
  readonly inFlight: number
}

/** Something whose calls can be measured: praas in one of its modes, or what it is compared with. */
export interface Peer {
  /** How `--peers` or `--subjects` names it. */
  readonly name: string
  /** What a call is. */
  readonly title: string
  /** What waits for a call: `await` in an event loop, `invokeSync` in a thread that does nothing else, or native code. */
  readonly client: 'await' | 'await invoke' | 'invokeSync' | 'native'
  /** `null` returns the input as it stands; `touch` reads all of it and writes as much, and so does its client. Default: `null`. */
  readonly function?: 'null' | 'touch'
  /** Whether it has a form with several operations at a time. */
  readonly concurrent: boolean
  /** Why it cannot be measured here; undefined when it can. */
  missing(): Promise<string | undefined>
  /** Starts its servers, which serve all of its samplers. */
  open(): Promise<OpenPeer>
}

export interface OpenPeer {
  sampler(options: SamplerOptions): Promise<Sampler>
  close(): Promise<void>
}

/** A sampler of a function that blocks until its operation is done. */
export function sampleSync(bytes: number, call: () => unknown, close: () => Promise<void>): Sampler {
  return {
    sample: async (count) => {
      for (let left = warmUps(count, bytes); left > 0; left--) call()
      const samples = new Float64Array(count)
      const begun = performance.now()
      let last = begun
      for (let done = 0; done < count; done++) {
        call()
        const now = performance.now()
        samples[done] = (now - last) * 1e6
        last = now
      }
      return { elapsedNs: (last - begun) * 1e6, samples }
    },
    close,
  }
}

/** A sampler of a function whose promise settles when its operation is done. */
export function sampleAsync(
  { bytes, inFlight }: SamplerOptions,
  call: () => Promise<unknown>,
  close: () => Promise<void>,
): Sampler {
  return {
    sample: async (count) => {
      await inLanes(Math.max(warmUps(count, bytes), 2 * inFlight), inFlight, call)
      const samples = new Float64Array(count)
      const begun = performance.now()
      await inLanes(count, inFlight, call, samples)
      return { elapsedNs: (performance.now() - begun) * 1e6, samples }
    },
    close,
  }
}

/** `count` operations in lanes, each of which starts the next when one is done; one clock reading per operation. */
async function inLanes(
  count: number,
  lanes: number,
  call: () => Promise<unknown>,
  samples?: Float64Array,
): Promise<void> {
  let started = 0
  const lane = async (): Promise<void> => {
    let last = performance.now()
    while (started < count) {
      const index = started++
      await call()
      const now = performance.now()
      if (samples) samples[index] = (now - last) * 1e6
      last = now
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
}

function warmUps(count: number, bytes: number): number {
  return bytes > 65_536 ? Math.ceil(count / 10) : Math.max(Math.ceil(count / 10), 100)
}
