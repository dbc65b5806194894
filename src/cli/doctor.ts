import { existsSync, readdirSync, readFileSync, statfsSync } from 'node:fs'
import type { CommandModule } from 'yargs'
import { cleanRuntimeDirectory } from '../agent/clean.js'
import { defaultRuntimeDirectory, RuntimeDirectory } from '../agent/runtime_directory.js'
import type { Cluster } from '../client/cluster.js'
import { connect } from '../client/connect.js'
import { messageOf } from '../errors.js'
import { native } from '../native/binding.js'
import { formatSize } from '../units.js'
import { commonOptions, type CommonArguments } from './common.js'
import { lockedMemory, rdma, surveyedRdma } from './doctor_rdma.js'
import { exitCodes } from './exit_codes.js'
import type { Finding } from './finding.js'
import { printJson, printTable } from './output.js'

interface DoctorArguments extends CommonArguments {
  readonly loopback: boolean
}

export const doctor: CommandModule<object, DoctorArguments> = {
  command: 'doctor',
  describe: 'check what this machine offers and what is missing',
  builder: (yargs) =>
    commonOptions(yargs)
      .option('loopback', {
        type: 'boolean',
        default: false,
        describe: 'also call a process of its own over each RDMA device',
      })
      .example('$0 doctor --loopback', 'whether RDMA works, not only whether it is there'),
  handler: async (args) => {
    const local = [
      nodeVersion,
      addon,
      sharedMemory,
      messageQueues,
      memlock,
      openFiles,
      rdma,
      runtimeDirectory,
      leftovers,
    ]
      .map((check) => checked(check, args))
      .flat()
    const findings = [...local, ...(await loopbacks(args)), ...(await connections(args))]
    if (args.json) printJson(findings)
    else
      printTable(
        ['', 'CHECK', 'FOUND', 'REMEDY'],
        findings.map(({ state, what, found, remedy }) => [state, what, found, remedy ?? '']),
      )
    if (findings.some(({ state }) => state === 'bad')) process.exitCode = exitCodes.failed
  },
}

type Check = (args: CommonArguments) => Finding | Finding[]

function checked(check: Check, args: CommonArguments): Finding[] {
  try {
    return [check(args)].flat()
  } catch (error) {
    return [{ what: check.name, state: 'bad', found: messageOf(error) }]
  }
}

function nodeVersion(): Finding {
  return { what: 'Node', state: 'ok', found: process.version }
}

function addon(): Finding[] {
  const { version, transports, missing } = native().capabilities()
  return [
    { what: 'native addon', state: 'ok', found: `${version}, transports ${transports.join(', ')}` },
    ...Object.entries(missing).map(([what, why]): Finding => ({ what, state: 'note', found: why })),
  ]
}

function sharedMemory(): Finding {
  const { bsize, bavail, blocks } = statfsSync('/dev/shm')
  const [free, total] = [bsize * bavail, bsize * blocks]
  const found = `${formatSize(free)} free of ${formatSize(total)}`
  if (free >= 64 * 2 ** 20) return { what: '/dev/shm', state: 'ok', found }
  return {
    what: '/dev/shm',
    state: 'bad',
    found,
    remedy: 'mount -o remount,size=… /dev/shm, or --shm-size of the container',
  }
}

function messageQueues(): Finding {
  const limit = (name: string): string => readFileSync(`/proc/sys/fs/mqueue/${name}`, 'utf8').trim()
  if (!existsSync('/proc/sys/fs/mqueue')) {
    return { what: 'message queues', state: 'note', found: 'the kernel has none; processes use futexes' }
  }
  const used = existsSync('/dev/mqueue') ? String(readdirSync('/dev/mqueue').length) : '?'
  const found = `${used} of ${limit('queues_max')} queues, ${limit('msg_max')} messages, ${formatSize(native().limits().msgqueueBytes)} per user`
  return { what: 'message queues', state: 'ok', found }
}

function memlock(): Finding {
  return lockedMemory(native().limits().memlockBytes, (surveyedRdma().devices ?? []).length > 0)
}

function openFiles(): Finding {
  const { openFiles: soft, openFilesHard: hard } = native().limits()
  const found = `${soft}, up to ${hard}`
  if (hard >= 1024) return { what: 'open files', state: 'ok', found }
  return { what: 'open files', state: 'bad', found, remedy: 'ulimit -n 4096' }
}

function runtimeDirectory({ runtimeDir }: CommonArguments): Finding {
  const path = runtimeDir ?? defaultRuntimeDirectory()
  const directory = RuntimeDirectory.find(path)
  if (!directory) return { what: 'runtime directory', state: 'ok', found: `${path} (made when needed)` }
  const agents = directory.agents()
  return { what: 'runtime directory', state: 'ok', found: `${path}, ${agents.length} cluster(s) running` }
}

function leftovers({ runtimeDir }: CommonArguments): Finding {
  const directory = RuntimeDirectory.find(runtimeDir)
  const { removed } = directory ? cleanRuntimeDirectory(directory, { dryRun: true }) : { removed: [] }
  if (removed.length === 0) return { what: 'leftovers', state: 'ok', found: 'none' }
  return {
    what: 'leftovers',
    state: 'note',
    found: `${removed.length} objects of dead clusters`,
    remedy: 'praas clean',
  }
}

async function loopbacks({ loopback: wanted }: DoctorArguments): Promise<Finding[]> {
  if (!wanted) return []
  // Loaded here: it brings all of the cluster along.
  const { loopback } = await import('./doctor_loopback.js')
  return loopback(surveyedRdma())
}

/** How calls from here reach each running process, and why not through shared memory. */
async function connections({ url, runtimeDir }: CommonArguments): Promise<Finding[]> {
  const running = url !== undefined || (RuntimeDirectory.find(runtimeDir)?.agents().length ?? 0) > 0
  if (!running) return []
  const findings: Finding[] = []
  try {
    const cluster = await connect(url, runtimeDir === undefined ? {} : { runtimeDir })
    try {
      for (const { id } of await cluster.processes()) findings.push(await connectionTo(cluster, id))
    } finally {
      await cluster.close()
    }
  } catch (error) {
    findings.push({ what: 'cluster', state: 'bad', found: messageOf(error) })
  }
  return findings
}

async function connectionTo(cluster: Cluster, id: string): Promise<Finding> {
  const what = `process ${id}`
  try {
    const { connection } = await cluster.process(id, { create: false })
    const reason = connection?.reason
    return {
      what,
      state: reason === undefined ? 'ok' : 'note',
      found: [connection?.transport ?? 'not connected', reason].filter((part) => part !== undefined).join(': '),
    }
  } catch (error) {
    return { what, state: 'bad', found: messageOf(error) }
  }
}
