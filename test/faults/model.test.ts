/** That the models of the fault campaign find what they are there for. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { audit, type Found } from './audit.js'
import { makeRecord, readRecords } from './bytes.js'
import { Counter } from './counter.js'
import { endForks, orphans } from './forks.js'
import type { Line } from './history.js'
import { HostKills } from './host_kills.js'
import { events, type Entry } from './journal.js'
import { moreOfHost, moreOfWorker } from './leftovers.js'
import { Random } from './random.js'
import { Contradiction, Register } from './register.js'
import { Report } from './report.js'
import type { SharedValues } from './shared.js'

const done = (version: number) => ({ outcome: 'done', version: String(version) }) as const
const unknown = { outcome: 'unknown' } as const
const set = (...records: number[]) => ({ kind: 'set', records }) as const
const append = (...records: number[]) => ({ kind: 'append', records }) as const

describe('a register', () => {
  const written = (): Register => {
    const register = new Register()
    register.write(1, set(10), done(1), 0)
    return register
  }

  it('takes what was answered', () => {
    const register = written()
    register.write(2, append(20), done(2), 0)
    register.read({ records: [10, 20], version: '2' })
    register.read({ count: 2 })
    register.write(3, { kind: 'patch', records: [30], at: 0 }, done(3), 0)
    register.read({ records: [30, 20] })
    register.write(4, { kind: 'patch', records: [40], at: 1 }, done(4), 0)
    register.write(5, { kind: 'patch', records: [50], at: 2 }, done(5), 0)
    register.read({ records: [30, 40, 50] })
    register.write(6, { kind: 'delete' }, { outcome: 'done', existed: true }, 0)
    register.read({})
    expect(() => register.write(7, { kind: 'patch', records: [60], at: 1 }, done(7), 0)).toThrow(Contradiction)
  })

  it('finds a change that was lost, and one that came back', () => {
    expect(() => written().read({})).toThrow(Contradiction)
    const register = written()
    register.write(2, set(20), done(2), 0)
    expect(() => register.read({ records: [10], version: '1' })).toThrow(Contradiction)
    expect(() => register.read({ records: [10] })).toThrow(Contradiction)
  })

  it('lets an unknown change happen once, or never', () => {
    const happened = written()
    happened.write(2, append(20), unknown, 100)
    happened.read({ records: [10], version: '1' })
    happened.read({ records: [10, 20], version: '2' })
    expect(happened.floating).toBe(0)
    expect(() => happened.read({ records: [10, 20, 20], version: '3' })).toThrow(Contradiction)

    const undone = written()
    undone.write(2, set(20), unknown, 100)
    undone.read({ records: [20], version: '2' })
    expect(() => undone.read({ records: [10] })).toThrow(Contradiction)
  })

  it('does not let it happen after its time, or when everything has come to rest', () => {
    const expired = written()
    expired.write(2, set(20), unknown, 100)
    expired.expire(100)
    expired.read({ records: [10], version: '1' })
    expect(() => expired.read({ records: [20], version: '2' })).toThrow(Contradiction)
    const fenced = written()
    fenced.write(2, set(20), unknown, 100)
    fenced.fence()
    fenced.read({ records: [20], version: '2' })
    expect(() => fenced.read({ records: [10] })).toThrow(Contradiction)
  })

  it('follows compare-and-set', () => {
    const conditional = { kind: 'set', records: [30], ifVersion: '1' } as const
    const register = written()
    expect(() => register.write(2, conditional, { outcome: 'mismatch' }, 0)).toThrow(Contradiction)
    register.write(2, set(20), unknown, 100)
    register.write(3, conditional, { outcome: 'mismatch' }, 0)
    register.read({ records: [20], version: '2' })
    expect(() => written().write(2, { ...conditional, ifVersion: '0' }, done(2), 0)).toThrow(Contradiction)
  })

  it('knows that versions grow', () => {
    expect(() => written().write(2, set(20), done(1), 0)).toThrow(Contradiction)
    expect(() => written().read({ records: [10], version: '2' })).toThrow(Contradiction)
  })
})

it('a counter finds increments that were lost or done twice', () => {
  const counter = new Counter()
  counter.incremented(1)
  counter.unknown(100)
  counter.read(1, 0)
  counter.read(2, 0)
  expect(() => counter.read(1, 0)).toThrow('lost')
  expect(() => counter.read(3, 0)).toThrow('twice')
  counter.unknown(100)
  counter.read(2, 100)
  expect(() => counter.read(3, 200)).toThrow('too late')
})

it('records tell when they are torn', () => {
  const value = Buffer.concat([makeRecord(1, 30), makeRecord(2, 10_000)])
  expect(readRecords(value)).toEqual([1, 2])
  for (const at of [0, 12, 29, 40, 9_000]) {
    const torn = Buffer.from(value)
    torn[at]! ^= 1
    expect(() => expect(readRecords(torn)).toEqual([1, 2])).toThrow()
  }
  expect(() => readRecords(value.subarray(0, -1))).toThrow('cut')
})

it('what a function left behind is found when its worker has ended', async () => {
  const text = `forks-${process.pid}`
  const child = spawn('sleep', ['60'], { stdio: 'ignore', env: { ...process.env, FORKS: text } })
  await once(child, 'spawn')
  const forked = [{ id: 1, event: events.forked, argument: 0, pid: 2, atMs: 10, subject: child.pid ?? 0 }]
  const none: ReadonlySet<number> = new Set()
  await expect.poll(() => orphans(forked, text, none, [])).toHaveLength(1)
  expect(orphans(forked, text, new Set([2]), [])).toEqual([])
  expect(orphans(forked, 'another campaign', none, [])).toEqual([])
  expect(orphans(forked, text, none, [{ fromMs: 15, toMs: 20 }])).toEqual([])
  expect(orphans(forked, text, none, [{ fromMs: 1, toMs: 5 }])).toHaveLength(1)
  expect(endForks(forked, text)).toBe(1)
  await once(child, 'exit')
  expect(orphans(forked, text, none, [])).toEqual([])
})

it('random numbers follow from the seed', () => {
  const draw = (name: string): number[] => Array.from({ length: 5 }, Random.prototype.next.bind(new Random(name)))
  expect(draw('a')).toEqual(draw('a'))
  expect(draw('a')).not.toEqual(draw('b'))
  const used = new Random('a')
  used.next()
  expect(used.fork('x').next()).toBe(new Random('a').fork('x').next())
})

it('a report tells what never came to pass', () => {
  const report = new Report()
  const none = new Map<string, number>()
  report.audited({
    ...{ found: [], counts: { executions: 2_000, forks: 1 }, latestMs: 0 },
    ...{ operations: none, outcomes: none, carried: none, served: new Map([['node', 1]]) },
  })
  report.epochs = 1
  const [messages, forks] = ['nothing was checked of: messages taken', 'nothing was checked of: forks']
  const missing = report.missing(none)
  expect(missing).toEqual(
    expect.arrayContaining([messages, 'no call was answered by: native', 'there was never: stop process']),
  )
  expect(missing).not.toContain(forks)
  expect(missing).not.toContain('there was never: kill agent')
  report.epochs = 2
  expect(report.missing(none)).toContain('there was never: kill agent')
  expect(report.missing(new Map([['kill agent', 1]]))).not.toContain('there was never: kill agent')
})

it('hosts that were replaced unasked are found in their process', () => {
  const kills = new HostKills()
  const restarts = (a: number, b: number): number =>
    kills.unasked([
      { id: 'a', restarts: a },
      { id: 'b', restarts: b },
    ]).length
  kills.killed('a', 1)
  kills.killed('a', 2)
  // Nobody had noticed the first time.
  for (let times = 0; times < 2; times++) kills.killed('b', 3)
  expect(restarts(2, 1)).toBe(0)
  expect(restarts(1, 2)).toBe(1)
  // A process that was created again, and another agent, count from 0 on.
  kills.forget('a')
  expect(restarts(0, 1)).toBe(0)
  expect(restarts(1, 1)).toBe(1)
  kills.forgetAll()
  expect(restarts(0, 1)).toBe(1)
})

it('descriptors of hosts and workers are found that no connection accounts for', () => {
  const before = { socket: 5, 'anon_inode:[eventfd]': 4, '/memfd:praas-window': 0, pipe: 2 }
  const [sockets, windows] = [
    (socket: number) => ({ ...before, socket }),
    (n: number) => ({ '/memfd:praas-window': n }),
  ]
  expect(moreOfHost(before, { ...before, ...windows(2) }, 2, 8)).toEqual([])
  expect(moreOfHost(before, { ...before, ...windows(3) }, 2, 8)).toHaveLength(1)
  expect(moreOfHost(before, sockets(13), 2, 8)).toEqual([])
  expect(moreOfHost(before, sockets(14), 2, 8)).toHaveLength(1)
  expect(moreOfHost(before, { ...before, pipe: 3 }, 2, 8)).toHaveLength(1)
  expect(moreOfWorker(before, { ...before, ...windows(5) }, 2)).toEqual([])
  expect(moreOfWorker(before, { ...before, ...windows(6) }, 2)).toHaveLength(1)
  expect(moreOfWorker(before, sockets(18), 2)).toHaveLength(1)
})

describe('an audit', () => {
  const none = { stops: [], killedHosts: new Map<number, number>(), gaps: [] }
  const call = (id: number, rest: object = {}): Line => ({
    ...{ begin: id, at: 0, lane: 0, kind: 'call plain', process: 'p', timeoutMs: 100, fn: 'echo', ids: [id] },
    ...rest,
  })
  const end = (id: number, at: number, rest: object = {}): Line => ({ end: id, at, lateMs: 0, ...rest })
  const ran = (id: number, atMs = 1): Entry => ({ id, event: events.begin, argument: 0, pid: 1, atMs, subject: 0 })
  const held = (id: number, writes: boolean, from: number, to: number): Entry[] => [
    { id, event: events.locked, argument: writes ? 256 : 0, pid: 1, atMs: from, subject: 0 },
    { id, event: events.unlocking, argument: writes ? 256 : 0, pid: 1, atMs: to, subject: 0 },
  ]
  const checks = (lines: readonly Line[], journal: readonly Entry[] = [], shared?: SharedValues): string[] =>
    audit([lines], journal, new Map(shared ? [['p', shared]] : []), none, {
      lateMs: 100,
      allowanceMs: 1_000,
    }).found.map(({ check }) => check)

  it('finds calls that ran twice, never, too late, or that nobody made', () => {
    expect(checks([call(1), end(1, 5)], [ran(1)])).toEqual([])
    expect(checks([call(1), end(1, 5)], [ran(1), ran(1)])).toEqual(['calls run at most once'])
    expect(checks([call(1, { idempotent: true }), end(1, 5)], [ran(1), ran(1)])).toEqual([])
    expect(checks([call(1), end(1, 5)])).toEqual(['calls run at most once'])
    expect(checks([call(1), end(1, 5, { code: 'ERR_WORKER_CRASHED' })])).toEqual([])
    expect(checks([call(1), end(1, 5, { code: 'ERR_FUNCTION_UNKNOWN' })], [ran(1)])).toHaveLength(1)
    expect(checks([call(1)], [ran(1, 1_200)])).toEqual(['calls end with their deadline'])
    expect(checks([], [ran(7)])).toEqual(['calls run at most once'])
    const ended = (id: number, atMs: number): Entry => ({ ...ran(id, atMs), event: events.end })
    expect(checks([call(1), end(1, 5)], [ran(1), ended(1, 1_000)])).toEqual([])
    expect(checks([call(1), end(1, 5)], [ran(1), ended(1, 1_200)])).toEqual(['calls end with their deadline'])
  })

  it('tells what carried the calls that were answered', () => {
    const lines = [
      ...[
        call(1, { over: 'verbs' }),
        end(1, 5),
        call(2, { over: 'verbs' }),
        end(2, 5),
        call(3, { over: 'tcp' }),
        end(3, 5),
      ],
      ...[call(4, { over: 'shm' }), end(4, 5, { code: 'ERR_HOST_LOST' }), call(5, { over: 'shm' })],
    ]
    const { carried } = audit([lines], [], new Map(), none, { lateMs: 100, allowanceMs: 1_000 })
    expect([...carried]).toEqual([
      ['verbs', 2],
      ['tcp', 1],
    ])
  })

  it('finds answers that came late, unless the client stood still', () => {
    const lines = [call(1), end(1, 300, { lateMs: 200 })]
    expect(checks(lines, [ran(1)])).toEqual(['answers come in time'])
    const stops = [{ client: 0, fromMs: 50, toMs: 250 }]
    expect(audit([lines], [ran(1)], new Map(), { ...none, stops }, { lateMs: 100, allowanceMs: 1_000 }).found).toEqual(
      [],
    )
  })

  it('finds that nobody served a process while somebody did', () => {
    const lines = [call(1), end(1, 20, { code: 'ERR_CLUSTER_UNREACHABLE' })]
    const during = (fromMs: number, toMs: number): Found[] => {
      const faults = { ...none, gaps: [{ fromMs, toMs }] }
      return audit([lines], [], new Map(), faults, { lateMs: 100, allowanceMs: 1_000 }).found
    }
    expect(during(10, 30)).toEqual([])
    expect(during(-10, 5)).toEqual([])
    expect(during(-150, -105)).toMatchObject([{ check: 'documented errors' }])
    expect(during(30, 40)).toMatchObject([{ check: 'documented errors' }])
    expect(checks(lines)).toEqual(['documented errors'])
    // Heard by a function that called another process.
    const thrown = [call(1), end(1, 20, { result: { thrown: 'ERR_APP_UNKNOWN' } })]
    expect(checks(thrown, [ran(1)])).toEqual(['documented errors'])
    // Heard when a lock was given back.
    const lock = { kind: 'lock', key: 'lock/a', mode: 'write', fn: undefined, ids: undefined }
    const kept = [
      call(1, lock),
      end(1, 10),
      { unlocking: 1, at: 20 },
      { unlocked: 1, at: 21, code: 'ERR_PROCESS_DRAINING' },
    ]
    expect(checks(kept)).toEqual(['documented errors'])
  })

  it('finds locks that were held together', () => {
    const lock = { kind: 'lock', key: 'lock/a', mode: 'write', fn: undefined, ids: undefined }
    const byClient = [call(1, lock), end(1, 10), { unlocking: 1, at: 20 }, { unlocked: 1, at: 21 }]
    const inFunction = (writes: boolean, from: number, to: number): string[] =>
      checks([...byClient, call(2), end(2, 50)], [ran(2), ...held(2, writes, from, to)])
    expect(inFunction(true, 15, 30)).toEqual(['locks exclude'])
    expect(inFunction(false, 5, 12)).toEqual(['locks exclude'])
    expect(inFunction(true, 20.5, 30)).toEqual([])
    const readers = [call(1), end(1, 50), call(2), end(2, 50)]
    expect(checks(readers, [ran(1), ran(2), ...held(1, false, 5, 30), ...held(2, false, 10, 20)])).toEqual([])
    expect(checks(readers, [ran(1), ran(2), ...held(1, false, 5, 30), ...held(2, true, 10, 20)])).toHaveLength(1)
  })

  it('finds reads that missed what was acknowledged before', () => {
    const state = { key: 'k', fn: undefined, ids: undefined }
    const written = [
      call(1, { ...state, kind: 'write set', write: set(4) }),
      end(1, 10, { result: { answer: done(5) } }),
    ]
    const reads = (at: number, seen: object): string[] =>
      checks([...written, call(2, { ...state, kind: 'foreign entry', at }), end(2, at + 5, { result: { seen } })])
    expect(reads(20, { records: [4], version: '5' })).toEqual([])
    expect(reads(20, { version: '4' })).toEqual(['acknowledged state is kept'])
    expect(reads(20, {})).toEqual(['acknowledged state is kept'])
    expect(reads(5, {})).toEqual([])
    // One that was aborted before may still come after it.
    const aborted = [
      call(3, { ...state, kind: 'write delete', write: { kind: 'delete' }, at: -10 }),
      end(3, -5, { code: 'aborted' }),
    ]
    const missing = (at: number): Line[] => [
      call(2, { ...state, kind: 'foreign entry', at }),
      end(2, at + 5, { result: { seen: {} } }),
    ]
    expect(checks([...aborted, ...written, ...missing(20)])).toEqual([])
    expect(checks([...written, ...missing(20)])).toHaveLength(1)
    const early = [
      call(2, { ...state, kind: 'foreign entry', at: -20 }),
      end(2, -5, { result: { seen: { version: '5' } } }),
    ]
    expect(checks([...written, ...early])).toEqual(['acknowledged state is kept'])
  })

  it('finds values of keys of others that nobody wrote', () => {
    const write = (id: number, version: number, written: object): Line[] => [
      call(id, { key: 'k', fn: undefined, kind: 'write', write: written }),
      end(id, 10, { result: { answer: done(version) } }),
    ]
    // The records of operation 1 are 4 to 7, and so on.
    const history = [
      { snapshot: { registers: { k: { records: [1] } }, counters: {}, nextId: 1 } },
      ...write(1, 5, set(4, 5)),
      ...write(2, 6, { kind: 'append', records: [8] }),
      ...write(3, 7, { kind: 'patch', records: [12], at: 1 }),
      call(4, { key: 'other', fn: undefined, kind: 'write', write: set(16) }),
    ]
    const reads = (version: number | undefined, ...records: number[]): string[] =>
      checks([
        ...history,
        call(9, { key: 'k', fn: undefined, kind: 'foreign entry', at: 5 }),
        end(9, 6, { result: { seen: { records, ...(version === undefined ? {} : { version: String(version) }) } } }),
      ])
    expect(reads(5, 4, 5)).toEqual([])
    expect(reads(6, 4, 5, 8)).toEqual([])
    expect(reads(7, 4, 12, 8)).toEqual([])
    expect(reads(undefined, 1)).toEqual([])
    for (const torn of [reads(5, 4), reads(5, 4, 5, 8), reads(6, 4, 5), reads(7, 4, 5, 8)])
      expect(torn).toEqual(['values are whole'])
    expect(reads(undefined, 16)).toEqual(['values are whole'])
    expect(reads(undefined, 4, 4)).toEqual(['values are whole'])
  })

  it('finds changes of shared keys that were lost, made twice, in another order, or of one version', () => {
    const change = (id: number, key: string, write: object, answer?: object): Line[] => [
      call(id, { key, fn: undefined, kind: 'write', write }),
      end(id, 10, answer ? { result: { answer } } : { code: 'ERR_HOST_LOST' }),
    ]
    const appended = (id: number, answer?: object): Line[] =>
      change(id, 'shared/log', { kind: 'append', records: [id * 4] }, answer)
    const wins = (id: number, ifVersion: string, answer?: object): Line[] =>
      change(id, 'shared/register', { kind: 'set', records: [id * 4], ifVersion }, answer)
    const log = [
      ...appended(1, done(5)),
      ...appended(2, done(6)),
      ...appended(3),
      ...appended(4, { outcome: 'nothing' }),
    ]
    const afterLog = (...records: number[]): string[] => checks(log, [], { log: records, register: [], messages: {} })
    expect(afterLog(4, 8)).toEqual([])
    expect(afterLog(4, 12, 8)).toEqual([])
    for (const wrong of [afterLog(4), afterLog(8, 4), afterLog(4, 8, 8), afterLog(4, 8, 16), afterLog(4, 8, 20)])
      expect(wrong).toEqual(['acknowledged state is kept'])
    const register = [
      ...wins(1, '0', done(5)),
      ...wins(2, '5', done(6)),
      ...wins(3, '6'),
      ...wins(4, '6', { outcome: 'mismatch' }),
    ]
    const afterSets = (lines: readonly Line[], ...records: number[]): string[] =>
      checks(lines, [], { log: [], register: records, messages: {} })
    expect(afterSets(register, 8)).toEqual([])
    expect(afterSets(register, 12)).toEqual([])
    for (const wrong of [[], [4], [16], [8, 12]])
      expect(afterSets(register, ...wrong)).toEqual(['acknowledged state is kept'])
    // What was made of an older version cannot have come after it.
    expect(afterSets([...register, ...wins(5, '6', done(8))], 12)).toEqual(['acknowledged state is kept'])
    expect(afterSets([...register, ...wins(5, '5', done(7))], 20)).toEqual(['acknowledged state is kept'])
  })

  describe('of messages', () => {
    const of = (id: number, fn: 'put' | 'get', from: number): Line[] => [
      call(id, { kind: `message ${fn}`, key: 'box', fn: `n_${fn}`, at: from }),
      end(id, 90),
    ]
    const entry = (id: number, event: number, atMs: number, subject = 0): Entry => ({
      ...{ id, event, argument: 0, pid: 1, atMs, subject },
    })
    /** The record of message `id` is 4 times as much. */
    const puts = (id: number, from: number, to?: number): [Line[], Entry[]] => [
      of(id, 'put', from),
      [entry(id, events.begin, from), ...(to === undefined ? [] : [entry(id, events.put, to, id * 4)])],
    ]
    const takes = (id: number, from: number, to: number, message: number): [Line[], Entry[]] => [
      of(id, 'get', from),
      [entry(id, events.begin, from), entry(id, events.took, to, message * 4)],
    ]
    const finds = (id: number, from: number, to: number): [Line[], Entry[]] => [
      of(id, 'get', from),
      [entry(id, events.begin, from), entry(id, events.empty, to)],
    ]
    /** Its worker was killed. */
    const ends = (id: number, from: number): [Line[], Entry[]] => [of(id, 'get', from), [entry(id, events.begin, from)]]
    const box = (done: readonly [Line[], Entry[]][], ...left: number[]): string[] =>
      checks(
        done.flatMap(([lines]) => lines),
        done.flatMap(([, entries]) => entries),
        { log: [], register: [], messages: { box: left.map((message) => message * 4) } },
      )
    const wrong = ['messages are taken once, in order']
    const [first, second] = [puts(1, 1, 2), puts(2, 3, 4)]

    it('takes what is documented', () => {
      expect(box([first, second, takes(3, 5, 6, 1), takes(4, 7, 8, 2), finds(5, 9, 10)])).toEqual([])
      expect(box([first, second, takes(3, 5, 6, 1)], 2)).toEqual([])
      // At the same time.
      expect(box([first, second, takes(3, 5, 9, 1), takes(4, 6, 8, 2), finds(5, 0, 3)])).toEqual([])
      expect(box([puts(1, 1, 4), second], 2, 1)).toEqual([])
    })

    it('finds messages that were lost, unless a function died that may have taken them', () => {
      expect(box([first])).toEqual(wrong)
      expect(box([first, ends(3, 5)])).toEqual([])
      expect(box([first, second, ends(3, 5)])).toEqual(wrong)
      expect(box([first, second, ends(3, 5), ends(4, 6)])).toEqual([])
      // It has ended before the message was there, or began when a later one had been taken.
      expect(box([puts(1, 1_500, 1_501), ends(3, 5)])).toContain(wrong[0])
      expect(box([first, second, takes(3, 5, 6, 2), ends(4, 7)])).toEqual(wrong)
      expect(box([first, second, ends(4, 5), takes(3, 5, 6, 2)])).toEqual([])
      // It went on, and says that it took none.
      const [lines, entries] = ends(3, 5)
      expect(box([first, [lines, [...entries, entry(3, events.failed, 6)]]])).toEqual(wrong)
    })

    it('finds messages that came twice, or that nobody put', () => {
      expect(box([first, takes(3, 5, 6, 1), takes(4, 7, 8, 1)])).toEqual(wrong)
      expect(box([first, takes(3, 5, 6, 1)], 1)).toEqual(wrong)
      expect(box([first], 1, 7)).toEqual(wrong)
      // Nobody was told whether it is there; it was refused; its function never ran.
      expect(box([puts(1, 1)], 1)).toEqual([])
      expect(box([puts(1, 1)])).toEqual([])
      const refused: [Line[], Entry[]] = [first[0], [entry(1, events.begin, 1), entry(1, events.refused, 2, 4)]]
      expect(box([refused])).toEqual([])
      expect(box([refused], 1)).toEqual(wrong)
      expect(box([[first[0], []]], 1)).toContain(wrong[0])
    })

    it('finds messages that overtook others', () => {
      expect(box([first, second, takes(3, 5, 6, 2), takes(4, 7, 8, 1)])).toEqual(wrong)
      expect(box([first, second, takes(3, 5, 6, 2)], 1)).toEqual(wrong)
      expect(box([first, second], 2, 1)).toEqual(wrong)
    })

    it('finds functions that missed a message, or returned another one', () => {
      expect(box([first, finds(3, 5, 6)], 1)).toEqual(wrong)
      expect(box([first, finds(3, 5, 6), takes(4, 7, 8, 1)])).toEqual(wrong)
      const [lines, entries] = takes(3, 5, 6, 1)
      const told = (...records: number[]): string[] =>
        box([first, [[lines[0]!, end(3, 7, { result: { seen: { records } } })], entries]])
      expect(told(4)).toEqual([])
      expect(told(8)).toEqual(['results are those of the call'])
      expect(told()).toEqual(['results are those of the call'])
    })
  })
})
