/** What processes and workers cost that do nothing. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Process } from '../../client/process.js'
import { PraasError } from '../../errors.js'
import { apps, BenchCluster, untilWorkers } from '../bench_cluster.js'
import { addIdleProcesses } from '../idle_load.js'
import { cpuNs, descendantsOf, privateBytes, untilStill } from '../os_usage.js'
import type { Quantity } from '../result.js'

/** Private memory of each host, and CPU time of the whole cluster, agent and clients included, while nothing happens. */
export async function idleQuantities(processes: number, seconds: number): Promise<Quantity[]> {
  await using bench = await BenchCluster.start('warm')
  await bench.deploy('ts')
  const idle = await addIdleProcesses(bench, processes)
  const [self = process.pid, ...others] = descendantsOf(process.pid)
  await untilStill(() => [self, ...others])
  // This process is read last before and first after, because reading is work of its own.
  const [othersNs, selfNs, began] = [cpuNs(others), cpuNs([self]), performance.now()]
  await delay(seconds * 1_000)
  const [selfDone, othersDone, elapsed] = [cpuNs([self]), cpuNs(others), performance.now() - began]
  const percent = (ns: number): number => (100 * ns) / (elapsed * 1e6)
  const during = `of a cluster with ${processes} idle processes, over ${seconds} s`
  const hosts = `private memory of the host of an idle process, of ${processes}`
  const memory = idle.map(hostBytes).sort((a, b) => a - b)
  return [
    quantity(`${hosts}, median`, memory[memory.length >> 1] ?? 0, 'B'),
    quantity(`${hosts}, largest`, memory.at(-1) ?? 0, 'B'),
    quantity(`CPU time ${during}: hosts and workers`, percent(othersDone - othersNs), '% of a core'),
    quantity(`CPU time ${during}: agent and client`, percent(selfDone - selfNs), '% of a core'),
  ]
}

function hostBytes(idle: Process): number {
  if (!idle.connection) throw new PraasError('ERR_UNSUPPORTED', `the connection to process ${idle.id} was lost`)
  return privateBytes(idle.connection.hostPid)
}

const calls = 10_000

/** One process with so many native workers: until they are there, while they are used, until they have gone. */
export async function manyWorkers(workers: number): Promise<Quantity[]> {
  await using bench = await BenchCluster.start('warm')
  await bench.deploy('native')
  const begin = performance.now()
  const many = await bench.cluster.process('many', { app: apps.native, workers })
  const first = performance.now()
  await untilWorkers(many, 'native', workers)
  const all = performance.now()
  const inputs = Array.from({ length: calls }, () => new Uint8Array(64))
  for await (const _ of many.invokeMany('null', inputs)) void _
  const called = performance.now()
  await many.stop()
  const what = `${workers} native workers of one process`
  return [
    quantity(`${what}: until the first is ready`, first - begin, 'ms'),
    quantity(`${what}: until all are ready`, all - begin, 'ms'),
    quantity(`${what}: ${calls} calls of 64 B by invokeMany`, called - all, 'ms'),
    quantity(`${what}: until all have ended`, performance.now() - called, 'ms'),
  ]
}

function quantity(name: string, value: number, unit: string): Quantity {
  return { suite: 'cold', name, value, unit }
}
