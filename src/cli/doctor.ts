import { existsSync, readdirSync, readFileSync, statfsSync } from 'node:fs'
import type { CommandModule } from 'yargs'
import { cleanRuntimeDirectory } from '../agent/clean.js'
import { defaultRuntimeDirectory, RuntimeDirectory } from '../agent/runtime_directory.js'
import type { Cluster } from '../client/cluster.js'
import { connect } from '../client/connect.js'
import { messageOf } from '../errors.js'
import { native, type RdmaDevice, type RdmaPort, type RdmaSurvey } from '../native/binding.js'
import { formatSize } from '../units.js'
import { commonOptions, type CommonArguments } from './common.js'
import { exitCodes } from './exit_codes.js'
import { printJson, printTable } from './output.js'

interface Finding {
  readonly what: string
  readonly state: 'ok' | 'note' | 'bad'
  readonly found: string
  readonly remedy?: string
}

export const doctor: CommandModule<object, CommonArguments> = {
  command: 'doctor',
  describe: 'check what this machine offers and what is missing',
  builder: (yargs) => commonOptions(yargs),
  handler: async (args) => {
    const local = [
      nodeVersion,
      addon,
      sharedMemory,
      messageQueues,
      lockedMemory,
      openFiles,
      rdma,
      runtimeDirectory,
      leftovers,
    ]
      .map((check) => checked(check, args))
      .flat()
    const findings = [...local, ...(await connections(args))]
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

/** What RDMA needs at least: a few connections with their windows and buffers. */
const enoughLockedBytes = 64 * 2 ** 20

function lockedMemory(): Finding {
  const { memlockBytes } = native().limits()
  const unlimited = memlockBytes < 0 || memlockBytes >= 2 ** 53
  const found = unlimited ? 'unlimited' : formatSize(memlockBytes)
  if (unlimited || memlockBytes >= enoughLockedBytes || rdmaDevices().length === 0) {
    return { what: 'locked memory', state: 'ok', found }
  }
  const remedy =
    'memlock in /etc/security/limits.conf, --ulimit memlock of the container, or PropagateResourceLimits of Slurm'
  return { what: 'locked memory', state: 'note', found: `${found}, which RDMA uses up soon`, remedy }
}

function openFiles(): Finding {
  const { openFiles: soft, openFilesHard: hard } = native().limits()
  const found = `${soft}, up to ${hard}`
  if (hard >= 1024) return { what: 'open files', state: 'ok', found }
  return { what: 'open files', state: 'bad', found, remedy: 'ulimit -n 4096' }
}

function rdmaDevices(): readonly RdmaDevice[] {
  return (JSON.parse(native().surveyRdma()) as RdmaSurvey).devices ?? []
}

function rdma(): Finding[] {
  const { error, devices = [] } = JSON.parse(native().surveyRdma()) as RdmaSurvey
  if (error !== undefined) return [{ what: 'RDMA library', state: 'note', found: error }]
  const library: Finding = { what: 'RDMA library', state: 'ok', found: 'libibverbs' }
  if (devices.length === 0) return [library, { what: 'RDMA devices', state: 'note', found: 'none' }]
  return [library, ...devices.flatMap(rdmaDevice)]
}

function rdmaDevice(device: RdmaDevice): Finding[] {
  const what = `RDMA ${device.name}`
  if (device.error !== undefined) return [{ what, state: 'bad', found: device.error }]
  const found = `${device.maxQueuePairs} queue pairs, ${device.maxMemoryRegions} memory regions`
  return [{ what, state: 'ok', found }, ...device.ports.map((port) => rdmaPort(what, port))]
}

function rdmaPort(device: string, { number, state, active, ethernet, mtuBytes, lid, gids }: RdmaPort): Finding {
  const what = `${device} port ${number}`
  const link = ethernet ? 'RoCE' : `InfiniBand, LID ${lid}`
  const addresses = gids.map(({ index, address, type }) => `${index} ${address}${ethernet ? ` ${type}` : ''}`)
  const found = `${link}, ${state}, MTU ${mtuBytes}, GIDs ${addresses.join(', ') || 'none'}`
  if (!active) {
    const remedy = ethernet ? 'bring its network interface up' : 'connect the cable; a subnet manager has to run'
    return { what, state: 'note', found, remedy }
  }
  if (ethernet && !gids.some(({ address, type }) => type === 'RoCE v2' && address.startsWith('::ffff:'))) {
    return {
      what,
      state: 'note',
      found,
      remedy: 'give its network interface an IPv4 address, for a RoCE v2 GID that is routed',
    }
  }
  return { what, state: 'ok', found }
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
  return { what: 'leftovers', state: 'note', found: `${removed.length} objects of dead hosts`, remedy: 'praas clean' }
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
