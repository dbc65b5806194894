/**
 * A client of the campaign, an OS process of its own: lanes that each do one operation after another until the driver says
 * `pause`, look at all their keys when it says `verify`, and go on when it says `resume`. It may be killed at any time.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { echo, fails, fork, linger, many, nested, nothing, peer, stream } from './call_operations.js'
import { nowMs } from './clock.js'
import { History, readHistory } from './history.js'
import { Lane } from './lane.js'
import { checkExpiry, endLease, renewLease, takeLease } from './lease_operations.js'
import { OwnDescriptors } from './leftovers.js'
import { getMessage, putMessage } from './mailbox_operations.js'
import { lockByClient, lockByFunction } from './lock_operations.js'
import { lanesPerClient, planLane, processes, type ClientTask, type FromClient, type ToClient } from './plan.js'
import { Random } from './random.js'
import { ClientSession, Reconnecting } from './session.js'
import { collectGarbage } from './garbage.js'
import { count, publish, read, readForeign, share, write } from './state_operations.js'
import { Violation } from './violation.js'

const task = JSON.parse(process.argv[2] ?? '') as ClientTask
const path = join(task.folder, `client-${task.client}.jsonl`)
const idsPerClient = 2 ** 40
/** To find out what a key is when nothing goes wrong any more. */
const verifyMs = 60_000

const random = new Random(`${task.seed}/client/${task.client}/${task.incarnation}`)
const lines = readHistory(path)
const history = new History(path)
const session = new ClientSession(task, history, nextId(), random.fork('session'))
const lanes = Array.from(
  { length: lanesPerClient },
  (_, index) => new Lane(session, index, random.fork(`lane ${index}`)),
)
const descriptors = new OwnDescriptors()
const withNode = processes.filter((served) => served.node)
const withMailboxes = processes.filter((served) => served.native)
let paused = false

/** Behind what predecessors have used. */
function nextId(): number {
  let next = task.client * idsPerClient + 1
  for (const line of lines) {
    if ('snapshot' in line) next = Math.max(next, line.snapshot.nextId)
    else if ('begin' in line) next = Math.max(next, line.begin + 1, ...(line.ids ?? []).map((id) => id + 1))
  }
  // Ids that were taken and not yet written down.
  return next + 1000
}

function tell(message: FromClient): void {
  process.send?.(message)
}

async function step(lane: Lane): Promise<void> {
  const { random, held } = lane
  const served = random.pick(processes)
  checkExpiry(lane)
  switch (
    random.weighted({
      ...{ write: 30, read: 20, count: 10, publish: 5, foreign: 8, share: 6 },
      ...{ echo: 30, nothing: 3, slow: 4, fails: 2, nested: 6, peer: 4, fork: 1, many: 3, stream: 3 },
      ...{ lock: 5, lockByFunction: 5, put: 6, get: 7 },
      ...{ lease: held ? 1 : 4, renew: held ? 2 : 0, endLease: held ? 2 : 0 },
      ...{ rest: 3, reconnect: lane.index === 0 ? 0.4 : 0 },
    })
  ) {
    case 'write':
      return write(lane, random.pick(lane.keys))
    case 'read':
      return void (await read(lane, random.pick(lane.keys)))
    case 'count':
      return void (await count(lane, random.pick(lane.counters), random.chance(0.8) ? 1 : 0))
    case 'publish': {
      const published = lane.keys.filter((own) => own.published)
      return published.length > 0 ? publish(lane, random.pick(published)) : undefined
    }
    case 'foreign': {
      const other = (task.client + random.integer(1, task.clients - 1)) % task.clients
      const { key, process } = random.pick(planLane(task.seed, other, random.integer(0, lanesPerClient - 1)).registers)
      return task.clients > 1 ? readForeign(lane, key, process.id) : undefined
    }
    case 'share':
      return share(lane, served)
    case 'echo':
      return echo(lane, served)
    case 'nothing':
      return nothing(lane, served)
    case 'slow':
      return linger(lane, served)
    case 'fails':
      return fails(lane, served)
    case 'nested':
      return nested(lane, served)
    case 'peer':
      return peer(lane, random.pick(withNode))
    case 'fork':
      return fork(lane, served)
    case 'many':
      return many(lane, served)
    case 'stream':
      return stream(lane, served)
    case 'lock':
      return lockByClient(lane, served)
    case 'lockByFunction':
      return lockByFunction(lane, served)
    case 'put':
      return putMessage(lane, random.pick(withMailboxes))
    case 'get':
      return getMessage(lane, random.pick(withMailboxes))
    case 'lease':
      return takeLease(lane, served)
    case 'renew':
      return renewLease(lane)
    case 'endLease':
      return endLease(lane)
    case 'rest':
      return void (await delay(random.integer(0, 30)))
    case 'reconnect':
      await session.close()
      return session.open()
  }
}

async function run(lane: Lane): Promise<void> {
  while (!paused) {
    try {
      await step(lane)
    } catch (error) {
      if (!(error instanceof Reconnecting)) throw error
      await delay(5)
    }
  }
  await endLease(lane, { forget: false })
}

/** One epoch: from `resume` to `verify`. */
async function epoch(): Promise<void> {
  await session.open()
  await Promise.all(lanes.map(run))
  tell({ type: 'paused' })
}

/** Nothing is under way: every key has one value, and it is one of those that it may have. */
async function verify(): Promise<void> {
  for (const lane of lanes) {
    const deadline = nowMs() + verifyMs
    const until = async (what: string, done: () => Promise<boolean>): Promise<void> => {
      while (!(await done())) {
        if (nowMs() > deadline) throw new Violation('nothing hangs', `${what} cannot be read within ${verifyMs} ms`)
        await delay(20)
      }
    }
    for (const own of lane.keys) {
      own.register.fence()
      await until(own.key, async () => (await read(lane, own, { timeoutMs: 5_000, way: 'entry' })).value !== undefined)
    }
    for (const counter of lane.counters) {
      counter.counter.fence()
      await until(counter.key, () => count(lane, counter, 0))
    }
  }
  await session.close()
  const closedMs = nowMs()
  for (let more = descriptors.more(); more.length > 0; more = descriptors.more()) {
    if (nowMs() > closedMs + verifyMs) throw new Violation('nothing is left over', more.join(', '))
    collectGarbage()
    await delay(20)
  }
  const all = lanes.map((lane) => lane.snapshot())
  history.restart({
    registers: Object.assign({}, ...all.map(({ registers }) => registers)) as (typeof all)[number]['registers'],
    counters: Object.assign({}, ...all.map(({ counters }) => counters)) as (typeof all)[number]['counters'],
    nextId: session.nextId,
  })
  tell({ type: 'verified' })
}

function failed(error: unknown): void {
  const check = error instanceof Violation ? error.check : 'the campaign itself works'
  const text = error instanceof Violation ? error.message : String((error as Error).stack)
  tell({ type: 'violation', check, text })
}

process.on('message', (message: ToClient) => {
  paused = message.type === 'pause'
  if (!paused) (message.type === 'verify' ? verify() : epoch()).catch(failed)
})
process.on('uncaughtException', failed)
process.on('unhandledRejection', failed)
process.on('disconnect', () => process.exit(1))

for (const lane of lanes) lane.replay(lines)
epoch().catch(failed)
