import type { Argv, CommandModule } from 'yargs'
import type { Cluster } from '../client/cluster.js'
import type { LeaseList, LeaseUse } from '../client/lease_report.js'
import { formatDuration, formatSize } from '../units.js'
import { commonOptions, withCluster, type CommonArguments } from './common.js'
import { printJson, printTable } from './output.js'

interface LeasesArguments extends CommonArguments {
  readonly process?: string | undefined
}

/** The leases of one process. */
interface Listed extends LeaseList {
  readonly process: string
}

export const leases: CommandModule<object, LeasesArguments> = {
  command: 'leases [process]',
  describe: 'list leases, and what they have used',
  builder: (yargs) =>
    (commonOptions(yargs as Argv) as Argv<LeasesArguments>)
      .positional('process', { type: 'string', describe: 'process id (default: all there are)' })
      .example('$0 leases grid', '')
      .example('$0 leases --json', 'nanoseconds, and each worker of each lease'),
  handler: (args) =>
    withCluster(args, async (cluster) => {
      const listed: Listed[] = []
      for (const id of await processIds(cluster, args.process)) listed.push(await list(cluster, id))
      if (args.json) return printJson(listed)
      printLeases(listed)
      process.stdout.write('\n')
      printTotals(listed)
    }),
}

async function processIds(cluster: Cluster, id: string | undefined): Promise<string[]> {
  if (id !== undefined) return [id]
  const processes = await cluster.processes()
  return processes.filter(({ state }) => state === 'ready' || state === 'draining').map((found) => found.id)
}

async function list(cluster: Cluster, id: string): Promise<Listed> {
  const found = await cluster.process(id, { create: false })
  try {
    return { process: id, ...(await found.leases()) }
  } finally {
    found.close()
  }
}

function printLeases(listed: readonly Listed[]): void {
  printTable(
    ['PROCESS', 'LEASE', 'NAME', 'CLIENT', 'WORKERS', 'EXPIRES IN', 'HELD', ...useHead],
    listed.flatMap(({ process: id, leases: held }) =>
      held.map((lease) => [
        id,
        lease.lease,
        lease.name || '-',
        lease.client,
        `${lease.workers} ${lease.lane}`,
        formatDuration(lease.remainingMs),
        duration(lease.heldNs),
        ...useCells(lease),
      ]),
    ),
  )
}

/** Of all leases there were, by process. */
function printTotals(listed: readonly Listed[]): void {
  printTable(
    ['PROCESS', 'LEASES', 'WAITING', 'FREE WORKERS', ...useHead],
    listed.map(({ process: id, totals, waiting, free, capacity }) => [
      id,
      totals.leases,
      waiting,
      `${free} of ${capacity}`,
      ...useCells(totals),
    ]),
  )
}

const useHead = ['ALLOCATED', 'POLLING', 'EXECUTION', 'CALLS', 'FAILURES', 'IN', 'OUT'] as const

function useCells(use: LeaseUse): (string | number)[] {
  return [
    duration(use.allocatedNs),
    duration(use.pollingNs),
    duration(use.executionNs),
    use.calls,
    use.failures,
    formatSize(use.bytesIn),
    formatSize(use.bytesOut),
  ]
}

function duration(nanoseconds: number): string {
  return formatDuration(nanoseconds / 1e6)
}
