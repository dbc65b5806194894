/**
 * Millions of calls, to see that nothing grows: memory of host, worker and client is no more than during the
 * first tenth of them, and nothing is left over. `scripts/soak --help` says how it is used.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Cluster } from '../../src/client/cluster.js'
import { packageRoot } from '../../src/package.js'
import { compileLibrary } from './library.js'
import { descriptorsOfAll, leftoversIn, names, survivors } from './leftovers.js'

const { values: given } = parseArgs({
  options: {
    calls: { type: 'string', default: '10000000' },
    seed: { type: 'string', default: '1' },
    tolerance: { type: 'string', default: '2' },
    'hot-ms': { type: 'string', default: '1' },
    transport: { type: 'string', default: 'shm' },
    language: { type: 'string', default: 'typescript' },
  },
})
const calls = Number(given.calls)
/** More than the most there was during the first tenth. That heaps shrink is no fault. */
const tolerance = Number(given.tolerance) / 100
const transport = oneOf('transport', given.transport, ['shm', 'tcp'])
const inTypeScript = oneOf('language', given.language, ['typescript', 'native']) === 'typescript'
const steps = 20
const id = 'soak'

function oneOf(name: string, value: string, choices: readonly string[]): string {
  if (choices.includes(value)) return value
  throw new Error(`--${name} ${value}: there are ${choices.join(', ')}`)
}

interface Memory {
  readonly rss: number
  /** Without files, whose share depends on who else has them mapped. */
  readonly own: number
}

/** KiB. */
function memoryOf(pid: number): Memory {
  const text = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8')
  const field = (name: string): number => {
    const size = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1]
    if (size === undefined) throw new Error(`the kernel does not tell ${name} of a process (since 5.4 it does)`)
    return Number(size)
  }
  return { rss: field('Rss'), own: field('Pss_Anon') + field('Pss_Shmem') }
}

/** RSS by what it is, KiB, to say what has grown. */
function kindsOf(pid: number): Map<string, number> {
  const kinds = new Map<string, number>()
  let kind = ''
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    const mapping = /^[0-9a-f]+-[0-9a-f]+ (\S+) \S+ \S+ \d+ *(.*)$/.exec(line)
    if (mapping) {
      const [, permissions = '', path = ''] = mapping
      if (path === '[heap]') kind = 'malloc'
      else if (path.startsWith('/')) kind = /^\/(dev\/shm|memfd)/.test(path) ? 'shared' : 'files'
      else kind = permissions.includes('x') ? 'compiled code' : 'anonymous'
    }
    const rss = /^Rss: +(\d+) kB/.exec(line)
    if (rss) kinds.set(kind, (kinds.get(kind) ?? 0) + Number(rss[1]))
  }
  return kinds
}

function changesOf(before: Map<string, number>, now: Map<string, number>): string {
  const changes = [...now].map(([kind, size]) => [kind, size - (before.get(kind) ?? 0)] as const)
  return changes.map(([kind, change]) => `${kind} ${change < 0 ? '' : '+'}${change}`).join(', ')
}

async function waitUntil(what: string, holds: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!(await holds())) {
    if (performance.now() > deadline) throw new Error(`within a minute it did not come about that ${what}`)
    await delay(10)
  }
}

const folder = mkdtempSync(join(tmpdir(), 'praas-s-'))
process.env['PRAAS_SOAK'] = folder
// What grows at any time, in steps and for good, and would hide what else does: the nursery of V8, from 1 MiB to 16 MiB when
// that pays, what malloc keeps for each thread of V8 that has ever compiled something, tens of MiB at a time, and what it keeps of
// the 1.4 MiB that V8 needs for one function more that it compiles at the same time as others.
process.env['NODE_OPTIONS'] = '--max-semi-space-size=1 --v8-pool-size=1'
process.env['MALLOC_ARENA_MAX'] = '1'
const app = inTypeScript
  ? join(packageRoot, 'test', 'faults', 'soak_app.ts')
  : compileLibrary('soak_functions.c', folder)
const runtimeDir = join(folder, 'run')
const cluster = await Cluster.local({
  app,
  runtimeDir,
  workers: 1,
  checkViews: false,
  transport: 'tcp',
  hotMs: Number(given['hot-ms']),
})
const served = await cluster.process(id)
// A call that waits for its worker makes the host look at the records of all workers there may be: memory that the segment has
// from the start, and of which the host maps 60 KiB the first time. On a busy machine that happens at any time.
await Promise.all([served.invoke('block'), served.invoke('block')])
// A worker makes what it waits with when it sleeps for the first time.
await waitUntil('the worker sleeps', async () => {
  const { participants } = (await served.statistics()) as { participants: { role: string; sleeps: number }[] }
  return participants.some(({ role, sleeps }) => role !== 'host' && sleeps > 0)
})
const baseline = descriptorsOfAll(await served.describe())
const client = fork(fileURLToPath(new URL('soak_client.js', import.meta.url)), [
  ...[runtimeDir, id, given.seed, given['hot-ms'], transport],
])
await once(client, 'message')
const exited = once(client, 'exit')
const { pid: host = 0, workers, segment } = await served.describe()
const pids = { host, worker: workers[0]?.pid ?? 0, client: client.pid ?? 0 }

const wrong: string[] = []
const reference = new Map<string, number>()
const firstKinds = new Map<string, Map<string, number>>()
console.log(
  `${calls} calls, ${transport}, ${given.language}, seed ${given.seed}; KiB, RSS / share of private and shared memory`,
)
for (let step = 1; step <= steps; step++) {
  const began = performance.now()
  client.send(calls / steps)
  const [answer] = (await Promise.race([once(client, 'message'), exited])) as [unknown]
  if (answer !== 'done') throw new Error(`the client ended: ${String(answer)}`)
  const seconds = (performance.now() - began) / 1000
  if (inTypeScript) await served.invoke('collect')
  const figures = Object.entries(pids).map(([who, pid]) => {
    const { rss, own } = memoryOf(pid)
    if (step <= steps / 10) firstKinds.set(who, kindsOf(pid))
    for (const [measure, size] of Object.entries({ rss, own })) {
      const name = `${measure} of ${who}`
      const most = reference.get(name) ?? 0
      if (step <= steps / 10) reference.set(name, Math.max(size, most))
      else if (size > most * (1 + tolerance)) {
        const change = ((size / most - 1) * 100).toFixed(1)
        const what = changesOf(firstKinds.get(who) ?? new Map(), kindsOf(pid))
        wrong.push(`after ${step * 5} % of the calls ${name} has grown by ${change} % to ${size} KiB (RSS: ${what})`)
      }
    }
    return `${who} ${rss} / ${own}`
  })
  const rate = Math.round(calls / steps / seconds)
  console.log(`${String(step * 5).padStart(3)} %  ${figures.join('   ')}   ${rate} calls/s`)
}

client.disconnect()
await exited
const deadline = performance.now() + 60_000
let left = ['']
while (left.length > 0 && performance.now() < deadline) {
  left = await leftoversIn({ id, node: inTypeScript, native: !inTypeScript }, served, 1, baseline)
}
await cluster.close()
left.push(...names([segment]), ...survivors(folder, new Set([process.pid])))
rmSync(folder, { recursive: true, force: true })
for (const text of [...wrong, ...left]) console.log(`WRONG: ${text}`)
console.log(wrong.length + left.length === 0 ? 'memory is flat, and nothing is left over' : 'the soak has failed')
process.exit(wrong.length + left.length === 0 ? 0 : 1)
