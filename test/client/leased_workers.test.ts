import { describe, expect, it } from 'vitest'
import { LeasedWorker, LeasedWorkers } from '../../src/client/leased_workers.js'
import type { Session } from '../../src/client/session.js'

interface FakeSession {
  closed: boolean
  close(): void
}

function place(index: number): { worker: LeasedWorker; session: FakeSession } {
  const session = {
    closed: false,
    close(): void {
      session.closed = true
    },
    connection: { calledMs: new Float64Array(1) },
    way: { transport: 'shm' },
  }
  return { worker: new LeasedWorker(index, 100 + index, session as unknown as Session), session }
}

function lease(count: number): { workers: LeasedWorkers; places: ReturnType<typeof place>[] } {
  const places = Array.from({ length: count }, (_, index) => place(index))
  return { workers: new LeasedWorkers(places.map(({ worker }) => worker)), places }
}

/** Which worker the next call goes to. */
function begin(workers: LeasedWorkers): LeasedWorker {
  const worker = workers.pick()
  if (!worker) throw new Error('there is none')
  workers.begin(worker)
  return worker
}

describe('the workers of a lease', () => {
  it('get calls evenly', () => {
    const { workers } = lease(3)
    const begun = Array.from({ length: 9 }, () => begin(workers).index)
    for (const index of [0, 1, 2]) expect(begun.filter((picked) => picked === index)).toHaveLength(3)
    expect(workers.list().map(({ inFlight }) => inFlight)).toEqual([3, 3, 3])
  })

  it('that have fewer in flight come first, whatever the order in which calls end', () => {
    const { workers } = lease(4)
    const running: LeasedWorker[] = []
    let random = 7
    for (let step = 0; step < 5_000; step++) {
      random = (random * 1_103_515_245 + 12_345) % 2 ** 31
      if (running.length < 40 && random % 5 < 3) {
        const fewest = Math.min(...workers.list().map(({ inFlight }) => inFlight))
        const worker = workers.pick()
        expect(worker?.inFlight).toBe(fewest)
        if (!worker) continue
        running.push(worker)
        workers.begin(worker)
      } else if (running.length > 0) {
        workers.finish(running.splice(random % running.length, 1)[0] as LeasedWorker)
      }
    }
  })

  it('are the same one for calls after one another', () => {
    const { workers } = lease(3)
    const first = begin(workers)
    workers.finish(first)
    for (let count = 0; count < 5; count++) {
      const next = begin(workers)
      expect(next).toBe(first)
      workers.finish(next)
    }
  })

  it('get none when they are dead or lost, and those that take their places do', async () => {
    const { workers, places } = lease(2)
    places[0]?.worker.died('{}', { signal: 'SIGKILL' })
    expect([begin(workers).index, begin(workers).index]).toEqual([1, 1])
    expect(workers.alive).toBe(1)
    if (places[1]) places[1].session.closed = true
    expect(workers.pick()).toBeUndefined()
    const changed = workers.nextChange()
    workers.replace(place(0).worker)
    await changed
    expect(places[0]?.session.closed).toBe(true)
    expect(begin(workers).index).toBe(0)
    expect(workers.list()).toMatchObject([
      { worker: 0, alive: true, calls: 1 },
      { worker: 1, alive: false, calls: 2 },
    ])
  })

  it('say whether they were used', () => {
    const { workers } = lease(2)
    expect(workers.use).toEqual({ calls: 0, busy: false })
    const worker = begin(workers)
    expect(workers.use).toEqual({ calls: 1, busy: true })
    workers.finish(worker)
    expect(workers.use).toEqual({ calls: 1, busy: false })
  })
})
