/**
 * The agent of a campaign, an OS process of its own because it may be killed: the next one serves the processes as that has left
 * them. Ends with the driver.
 */
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Cluster } from '../../src/client/cluster.js'
import { packageRoot } from '../../src/package.js'
import { nowMs } from './clock.js'
import { codeIn } from './codes.js'
import { graceMs, limits, processes, workersPerLanguage, type AgentTask, type FromAgent } from './plan.js'

/** Until the hosts of a former agent have ended: a second, but one may be stopped when that begins. */
const hostsEndMs = 20_000

const { runtimeDir, library, hotMs, checkViews } = JSON.parse(process.argv[2] ?? '') as AgentTask

function tell(message: FromAgent): void {
  if (process.connected) process.send?.(message)
}

async function start(): Promise<Cluster> {
  const cluster = await Cluster.local({
    ...{ runtimeDir, hotMs, checkViews, graceMs, ...limits },
    ...{ workers: workersPerLanguage, nativeWorkers: workersPerLanguage },
    transport: 'tcp',
  })
  const app = join(packageRoot, 'test', 'faults', 'app.ts')
  const maxOutput = '2 MiB'
  await cluster.deploy({ name: 'node', app })
  await cluster.deploy({ name: 'native', native: library, maxOutput })
  await cluster.deploy({ name: 'mixed', app, native: library, maxOutput })
  await Promise.all(processes.map(({ id }) => create(cluster, id)))
  return cluster
}

async function create(cluster: Cluster, id: string): Promise<void> {
  const beganMs = nowMs()
  for (;;) {
    try {
      return (await cluster.process(id, { app: id })).close()
    } catch (error) {
      if (codeIn(error) !== 'ERR_PROCESS_BUSY' || nowMs() > beganMs + hostsEndMs) throw error
    }
    await delay(20)
  }
}

process.on('disconnect', () => process.exit(1))
try {
  const cluster = await start()
  process.on('message', () => {
    void cluster.close().then(() => process.exit(0))
  })
  tell({ type: 'ready' })
} catch (error) {
  tell({ type: 'failed', text: String((error as Error).stack) })
}
