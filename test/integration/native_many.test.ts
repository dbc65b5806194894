/** As many native workers as a process can have. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { native } from '../../src/native/binding.js'
import { clusterForTest, isRunning } from '../support/cluster.js'
import { compileLibrary } from '../support/compile.js'
import { processBy, untilReady } from '../support/native.js'
import { sanitized } from '../support/sanitized.js'
import { temporaryFolder } from '../support/temporary.js'

const count = 1000
/** Sockets, pipes and pidfds of the host for each worker, and some for everything else. */
const neededFiles = 6 * count
/** A worker has a thread beside its own. */
const neededTasks = 3 * count
const neededKiB = 4 * 2 ** 20

function numberIn(path: string, pattern: RegExp): number {
  try {
    const found = pattern.exec(readFileSync(path, 'utf8'))?.[1]
    return found === undefined || found === 'unlimited' || found === 'max' ? Infinity : Number(found)
  } catch {
    return Infinity // no such limit
  }
}

/** Why so many workers cannot run here, or undefined. */
function obstacle(): string | undefined {
  if (sanitized !== undefined) return sanitized
  native().raiseOpenFiles()
  const files = numberIn('/proc/self/limits', /^Max open files +(\S+)/m)
  if (files < neededFiles) return `${files} files may be open, and ${neededFiles} are needed (ulimit -n)`
  const tasks = Math.min(
    process.getuid?.() === 0 ? Infinity : numberIn('/proc/self/limits', /^Max processes +(\S+)/m),
    numberIn('/sys/fs/cgroup/pids.max', /^(\S+)/),
    numberIn('/sys/fs/cgroup/pids/pids.max', /^(\S+)/),
    numberIn('/proc/sys/kernel/pid_max', /^(\S+)/),
  )
  if (tasks < neededTasks) return `${tasks} processes may run, and ${neededTasks} threads are needed (ulimit -u)`
  const memory = numberIn('/proc/meminfo', /^MemAvailable: +(\d+)/m)
  if (memory < neededKiB) return `${memory} KiB of memory are available, and ${neededKiB} are needed`
  return undefined
}

const reason = obstacle()
if (reason !== undefined) console.log(`${count} native workers are not tested: ${reason}`)

/** Waits inside until the lock "gate" can be had, so that no worker takes two calls; then gives its pid. */
const source = `
  #include <praas/praas.h>
  #include <unistd.h>
  PRAAS_FUNCTION(gather) {
    void* inside;
    uint64_t lock;
    uint32_t* pid = praas_output(context, sizeof *pid);
    if (pid == NULL || praas_state_array(context, "inside", PRAAS_INT32, 1, &inside) != PRAAS_OK) return PRAAS_FAILED;
    __atomic_fetch_add((int32_t*)inside, 1, __ATOMIC_SEQ_CST);
    *pid = (uint32_t)getpid();
    return praas_state_lock(context, "gate", PRAAS_LOCK_READ, 0, &lock);
  }
`
/** What one connection has in flight at most is less than the workers. */
const clients = 5

it.skipIf(reason !== undefined)(
  '1,000 native workers start, answer and stop',
  async () => {
    const library = join(temporaryFolder(), 'libgather.so')
    compileLibrary(library, source)
    const started = await clusterForTest({ app: library })
    const process = await started.cluster.process('many', { workers: count, hotMs: 0, timeoutMs: 120_000 })
    const pids = await untilReady(process, count)
    expect(new Set(pids).size).toBe(count)

    const gate = await process.state.lock('gate', 'write')
    const callers = await Promise.all(Array.from({ length: clients }, () => processBy('shm', started, 'many')))
    const calls = callers.flatMap((caller) =>
      Array.from({ length: count / clients }, () => caller.invoke('gather', undefined, { timeoutMs: 200_000 })),
    )
    const answers = Promise.all(calls)
    answers.catch(() => undefined)
    const inside = async (): Promise<number> => {
      const value = await process.state.get('inside')
      return value === undefined ? 0 : Buffer.from(value).readInt32LE()
    }
    await expect.poll(inside, { timeout: 120_000, interval: 200 }).toBe(count)
    await gate.release()
    const answered = (await answers).map((bytes) => Buffer.from(bytes).readUInt32LE())
    expect(answered.sort()).toEqual([...pids].sort())

    const { pid } = await process.describe()
    await process.stop({ timeoutMs: 60_000 })
    await expect.poll(() => [...pids, pid ?? 0].filter(isRunning), { timeout: 60_000 }).toEqual([])
  },
  300_000,
)
