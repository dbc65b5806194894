/**
 * Random operations on real processes while workers, hosts, clients and the agent are killed and stopped, checked against a
 * model; see docs/reliability.md. `scripts/test-faults --help` says how it is used.
 *
 * A campaign is a sequence of epochs. In each, clients (`client.ts`) work and the injector (`injector.ts`) does harm; then
 * everything comes to rest, clients look at all they have written (`register.ts`, `counter.ts`), the histories are checked together
 * (`audit.ts`), and nothing may be left over (`leftovers.ts`).
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { tmpdir } from 'node:os'
import type { Cluster } from '../../src/client/cluster.js'
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import type { ProcessDescription } from '../../src/control.js'
import { messageOf } from '../../src/errors.js'
import { native } from '../../src/native/binding.js'
import { AgentProcess } from './agent_process.js'
import { audit } from './audit.js'
import { readRecords } from './bytes.js'
import { ClientGroup } from './client_group.js'
import { nowMs } from './clock.js'
import { codeIn } from './codes.js'
import { endForks, orphans } from './forks.js'
import { readHistory } from './history.js'
import { Injector } from './injector.js'
import { emptyJournal, journalVariable, readJournal } from './journal.js'
import { descriptorsOfAll, leftoversIn, names, survivors, type Baseline } from './leftovers.js'
import { compileLibrary } from './library.js'
import { takeMessages } from './mailbox_operations.js'
import { graceMs, lockNames, processes, sharedKeys, workersPerLanguage, type ClientTask } from './plan.js'
import { Random } from './random.js'
import { Report } from './report.js'
import type { SharedValues } from './shared.js'
import { within } from './violation.js'

const { values: given } = parseArgs({
  options: {
    seed: { type: 'string' },
    minutes: { type: 'string', default: '1' },
    transport: { type: 'string', default: '' },
    clients: { type: 'string', default: '3' },
    'pause-ms': { type: 'string', default: '400' },
    'epoch-seconds': { type: 'string', default: '20' },
    report: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
})

const seed = given.seed ?? String(Math.floor(Math.random() * 2 ** 32))
/** What an answer may be late on a machine that others use, too. */
const lateMs = graceMs + 5_000
/** After its deadline, until an operation of unknown outcome can no longer take effect. */
const allowanceMs = graceMs + 10_000
/** What calls that run may still take when their process is stopped. */
const drainMs = 500
/** Until everything has come to rest. */
const restMs = 120_000

function transports(): ClientTask['transports'] {
  const { devices = [] } = JSON.parse(native().surveyRdma()) as { devices?: { ports: { active: boolean }[] }[] }
  const rdma = devices.some(({ ports }) => ports.some(({ active }) => active))
  const there = (['shm', 'tcp', 'verbs'] as const).filter((name) => name !== 'verbs' || rdma)
  const wanted = given.transport === '' ? there : given.transport.split(',')
  const chosen = there.filter((name) => wanted.includes(name))
  if (chosen.length !== wanted.length) {
    throw new Error(`--transport ${given.transport}: on this machine there are ${there.join(', ')}`)
  }
  return chosen
}

const report = new Report()
const random = new Random(`${seed}/driver`)
const folder = mkdtempSync(join(tmpdir(), 'praas-f-'))
const runtimeDir = join(folder, 'run')
const journal = join(folder, 'journal')
writeFileSync(journal, '')
process.env[journalVariable] = journal
const chosen = transports()

const replay = [
  `--seed ${seed}`,
  ...(['minutes', 'transport', 'clients', 'pause-ms', 'epoch-seconds'] as const)
    .filter((name) => given[name] !== '')
    .map((name) => `--${name} ${given[name]}`),
]
console.log(`seed ${seed}, transports ${chosen.join(', ')}; again: scripts/test-faults ${replay.join(' ')}`)

function note(text: string): void {
  if (given.verbose) console.log(`${new Date().toISOString()} ${text}`)
}

/** Polls until nothing is left, and says what is when that takes too long. */
async function untilNothing(check: string, left: () => Promise<string[]>): Promise<void> {
  const deadline = nowMs() + restMs
  let noted = ''
  for (;;) {
    const found = await within(check, restMs, left())
    if (found.length === 0) return report.count(check)
    const [first = ''] = found
    if (first !== noted) note(`wait for ${found.length}: ${first}`)
    noted = first
    if (nowMs() > deadline) {
      for (const text of found) report.add(check, text)
      return
    }
    await delay(100)
  }
}

async function campaign(): Promise<ReadonlyMap<string, number>> {
  const library = compileLibrary('functions.c', folder)
  const agent = new AgentProcess(
    { runtimeDir, library, hotMs: random.pick([0, 1, 5]), checkViews: random.chance(0.5) },
    restMs,
    (check, text) => report.add(check, text),
  )
  await agent.start()
  // The driver's own connections have no windows that would be in the way of what is left over.
  const observer = await connect(undefined, { runtimeDir, transport: 'tcp' })
  const handles = new Map<string, Process>()
  for (const { id } of processes) {
    handles.set(id, await observer.process(id, { create: false }))
  }
  const handle = (id: string): Process => handles.get(id)!
  // A host opens its RDMA device for the first client that asks, and keeps it.
  if (chosen.includes('verbs')) await callByRdma()

  const atRest = (baselines?: ReadonlyMap<string, Baseline>) =>
    untilNothing('nothing is left over', async () => {
      const left: string[] = []
      const workers = (await observer.processes()).flatMap((each) => each.workers)
      const peers = new Set(workers.map(({ pid }) => pid))
      for (const served of processes) {
        try {
          const baseline = baselines?.get(served.id)
          left.push(...(await leftoversIn(served, handle(served.id), workersPerLanguage, baseline, peers)))
        } catch (error) {
          left.push(`${served.id}: ${messageOf(error)}`) // its host is being replaced
        }
      }
      left.push(...orphans(readJournal(journal), journal, peers, agent.gaps))
      if (baselines) left.push(...agent.descriptors.more().map((more) => `the agent: ${more}`))
      return left
    })
  await atRest()
  const first = await Promise.all(processes.map(({ id }) => handle(id).describe()))
  const baselines = new Map(first.map((description) => [description.id, descriptorsOfAll(description)]))

  const task = { seed, clients: Number(given.clients), runtimeDir, folder, transports: chosen, allowanceMs }
  const clients = new ClientGroup(task, (check, text) => report.add(check, text))
  const injector = new Injector(
    random.fork('faults'),
    Number(given['pause-ms']),
    // What the next agent starts with is left alone: it could not tell that from what never worked.
    {
      describe: () => (agent.pid === undefined ? Promise.resolve([]) : described(observer)),
      restart: (id) => restart(observer, id),
    },
    agent,
    clients,
    note,
  )
  // From here on: a slow machine takes a while to get as far.
  const endMs = nowMs() + Number(given.minutes) * 60_000
  const epochMs = Number(given['epoch-seconds']) * 1_000
  try {
    while (report.violations.length === 0) {
      note(`epoch ${report.epochs + 1} begins`)
      await injector.run(report.epochs, Math.min(nowMs() + epochMs, endMs), () => report.violations.length > 0)
      if (report.violations.length > 0) break
      note('clients finish what they do')
      if (!(await clients.all('pause', 'paused', restMs))) break
      note('calls end')
      await untilNothing('calls end with their deadline', async () => {
        const left: string[] = []
        for (const { id } of processes) {
          // Whatever was asked of a host before this has been done.
          try {
            await handle(id).state.get('fence')
            const { callsInUse } = (await handle(id).statistics()) as { callsInUse: number }
            if (callsInUse > 0) {
              const { segment } = await handle(id).describe()
              const { calls } = JSON.parse(native().inspectSegment(segment, id)) as { calls: unknown[] }
              left.push(`${id}: ${callsInUse} calls go on: ${JSON.stringify(calls)}`)
            }
          } catch (error) {
            left.push(`${id}: ${messageOf(error)}`) // its host is being replaced
          }
        }
        return left
      })
      note('locks are taken')
      await checkLocks(handle)
      note('clients verify their keys')
      if (!(await clients.all('verify', 'verified', restMs))) break
      const shared = await takeShared(handle)
      note('nothing may be left over')
      await atRest(baselines)
      report.count('forks', endForks(readJournal(journal), journal))
      note('histories are audited')
      checkHosts(await observer.processes(), injector)
      const histories = clients.histories.map((path) => readHistory(path))
      const harm = {
        stops: injector.stops,
        killedHosts: injector.killedHosts,
        gaps: [...agent.gaps, ...injector.absences],
      }
      report.audited(audit(histories, readJournal(journal), shared, harm, { lateMs, allowanceMs }))
      report.epochs++
      if (nowMs() + 2_000 >= endMs) break
      emptyJournal(journal)
      injector.stops.length = 0
      agent.gaps.length = 0
      injector.absences.length = 0
      clients.tell('resume')
    }
  } catch (error) {
    // What is there has to be closed even so.
    report.addThrown(error)
  } finally {
    await clients.close(restMs)
  }
  for (const transport of chosen) {
    if (report.violations.length > 0 || report.carried(transport) > 0) continue
    report.add('the campaign itself works', `no call was answered over ${transport}`)
  }
  if (report.violations.length === 0)
    for (const what of report.missing(injector.counts)) report.add('the campaign itself works', what)
  note('the cluster closes')
  await within('the connection of the driver closes', restMs, observer.close())
  // Without an agent nobody takes them away.
  const segments = agent.pid === undefined ? [] : first.map(({ segment }) => segment)
  await agent.close()
  const except = new Set([process.pid])
  await untilNothing('nothing is left over', async () => [...survivors(journal, except), ...names(segments)])
  return injector.counts
}

/** None when the agent dies meanwhile. */
async function described(observer: Cluster): Promise<readonly ProcessDescription[]> {
  try {
    return await observer.processes()
  } catch (error) {
    if (codeIn(error) === 'ERR_CLUSTER_UNREACHABLE') return []
    throw error
  }
}

/** Ends a process, whose state stays, and creates it again. */
async function restart(observer: Cluster, id: string): Promise<void> {
  await observer.stop(id, { keep: true, timeoutMs: drainMs })
  ;(await observer.process(id, { app: id })).close()
}

async function callByRdma(): Promise<void> {
  const client = await connect(undefined, { runtimeDir, transport: 'verbs' })
  try {
    for (const { id, node } of processes) {
      const process = await client.process(id, { create: false })
      await process.invoke(node ? 'nothing' : 'n_nothing', new Uint8Array(0))
    }
  } finally {
    await client.close()
  }
}

/** What has become of keys and mailboxes that all clients write; the next epoch begins without. */
async function takeShared(handle: (id: string) => Process): Promise<Map<string, SharedValues>> {
  const values = new Map<string, SharedValues>()
  for (const served of processes) {
    const { id } = served
    const { state } = handle(id)
    const take = async (key: string): Promise<number[]> => {
      const value = await state.get(key)
      await state.delete(key)
      return value ? readRecords(value) : []
    }
    values.set(id, {
      log: await take(sharedKeys.log),
      register: await take(sharedKeys.register),
      messages: served.native ? await takeMessages(handle(id)) : {},
    })
  }
  return values
}

async function checkLocks(handle: (id: string) => Process): Promise<void> {
  for (const { id } of processes) {
    for (const name of lockNames) {
      try {
        await (await handle(id).state.lock(name, 'write', { timeoutMs: 20_000 })).release()
        report.count('locks are released')
      } catch (error) {
        report.add('locks are released', `${name} of ${id}: ${messageOf(error)}`)
      }
    }
  }
}

function checkHosts(described: readonly ProcessDescription[], { hostKills }: Injector): void {
  const unasked = hostKills.unasked(described)
  for (const text of unasked) report.add('nobody dies unasked', text)
  if (unasked.length === 0) report.count('nobody dies unasked')
}

let faults: ReadonlyMap<string, number> = new Map()
try {
  faults = await campaign()
} catch (error) {
  report.addThrown(error)
}
report.print(faults)
if (given.report !== undefined) {
  mkdirSync(join(given.report, '..'), { recursive: true })
  report.save(given.report, `seed ${seed}`)
}
if (report.violations.length === 0) rmSync(folder, { recursive: true, force: true })
else {
  console.log(`again: scripts/test-faults ${replay.join(' ')}`)
  if (existsSync(folder)) console.log(`histories, journal and logs are in ${folder}`)
}
process.exit(report.violations.length === 0 && report.epochs > 0 ? 0 : 1)
