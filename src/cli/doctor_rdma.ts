/** What `praas doctor` finds out about RDMA, and what to change. */
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { codeOf } from '../errors.js'
import { native, type RdmaDevice, type RdmaPort, type RdmaSurvey } from '../native/binding.js'
import { formatSize } from '../units.js'
import type { Finding } from './finding.js'

export function surveyedRdma(): RdmaSurvey {
  return JSON.parse(native().surveyRdma()) as RdmaSurvey
}

/** Library, devices with their files and ports, and settings. */
export function rdma(): Finding[] {
  const { error, devices = [] } = surveyedRdma()
  if (error !== undefined) return [{ what: 'RDMA library', state: 'note', ...explained(error) }]
  const library: Finding = { what: 'RDMA library', state: 'ok', found: 'libibverbs' }
  const found = devices.length > 0 ? devices.flatMap(rdmaDevice) : [noDevice(kernelDevices())]
  return [library, ...found, ...settings(devices)]
}

/** Our messages put what to do behind what is wrong. */
function explained(message: string): Pick<Finding, 'found' | 'remedy'> {
  const [found = message, ...remedy] = message.split('; ')
  return remedy.length > 0 ? { found, remedy: remedy.join('; ') } : { found }
}

/** Names of what drivers have announced, whether programs can use it or not. */
function kernelDevices(): string[] {
  const folder = '/sys/class/infiniband'
  return existsSync(folder) ? readdirSync(folder) : []
}

export function noDevice(known: readonly string[]): Finding {
  const what = 'RDMA devices'
  if (known.length === 0) {
    const remedy = 'for a network card with RDMA: its driver (mlx5_ib, irdma, …); without one calls take TCP'
    return { what, state: 'note', found: 'none', remedy }
  }
  return {
    what,
    state: 'bad',
    found: `the kernel has ${known.join(', ')}; libibverbs sees none`,
    remedy:
      'modprobe ib_uverbs; --device=/dev/infiniband for a container; the provider of the card (ibverbs-providers)',
  }
}

function rdmaDevice(device: RdmaDevice): Finding[] {
  const what = `RDMA ${device.name}`
  const file = deviceFile(device.name)
  if (device.error !== undefined) return [{ what, state: 'bad', ...explained(device.error) }, ...file]
  const found = `${device.maxQueuePairs} queue pairs, ${device.maxMemoryRegions} memory regions`
  return [{ what, state: 'ok', found }, ...file, ...device.ports.map((port) => rdmaPort(what, port))]
}

/** Whether this user may use the file that a device is opened by. */
function deviceFile(device: string): Finding[] {
  const classes = '/sys/class/infiniband_verbs'
  if (!existsSync(classes)) return []
  const name = readdirSync(classes).find((each) => nameOf(join(classes, each, 'ibdev')) === device)
  if (name === undefined) return []
  const what = `RDMA ${device} file`
  const path = `/dev/infiniband/${name}`
  try {
    accessSync(path, constants.R_OK | constants.W_OK)
    return [{ what, state: 'ok', found: `${path} can be read and written` }]
  } catch (error) {
    const absent = codeOf(error) === 'ENOENT'
    const remedy = absent
      ? 'modprobe ib_uverbs; --device=/dev/infiniband for a container'
      : 'the udev rules of rdma-core, or a group of its owner, such as rdma; --group-add for a container'
    return [{ what, state: 'bad', found: `${path} ${absent ? 'is not there' : 'is not for this user'}`, remedy }]
  }
}

function nameOf(path: string): string | undefined {
  return existsSync(path) ? readFileSync(path, 'utf8').trim() : undefined
}

export function rdmaPort(device: string, { number, state, active, ethernet, mtuBytes, lid, gids }: RdmaPort): Finding {
  const what = `${device} port ${number}`
  const link = ethernet ? 'RoCE' : `InfiniBand, LID ${lid}`
  const addresses = gids.map(({ index, address, type }) => `${index} ${address}${ethernet ? ` ${type}` : ''}`)
  const found = `${link}, ${state}, MTU ${mtuBytes}, GIDs ${addresses.join(', ') || 'none'}`
  if (!active) {
    const remedy = ethernet ? 'bring its network interface up' : 'connect the cable; a subnet manager has to run'
    return { what, state: 'note', found, remedy }
  }
  if (ethernet && !gids.some(({ address, type }) => type === 'RoCE v2' && address.startsWith('::ffff:'))) {
    const remedy = 'give its network interface an IPv4 address, for a RoCE v2 GID that is routed'
    return { what, state: 'note', found, remedy }
  }
  return { what, state: 'ok', found }
}

/** A few connections with their windows and buffers. */
const enoughLockedBytes = 64 * 2 ** 20
/** One connection without any buffers, and what the driver needs beside. */
const leastLockedBytes = 512 * 2 ** 10

/** @param used  whether there is a device that needs it */
export function lockedMemory(memlockBytes: number, used: boolean): Finding {
  const what = 'locked memory'
  const unlimited = memlockBytes < 0 || memlockBytes >= 2 ** 53
  const found = unlimited ? 'unlimited' : formatSize(memlockBytes)
  if (unlimited || memlockBytes >= enoughLockedBytes || !used) return { what, state: 'ok', found }
  const remedy =
    'memlock in /etc/security/limits.conf, --ulimit memlock=-1 of the container, PropagateResourceLimitsExcept=MEMLOCK of Slurm'
  const consequence =
    memlockBytes < leastLockedBytes
      ? 'too little for RDMA, calls take TCP'
      : 'large payloads beyond it go in small pieces'
  return { what, state: 'note', found: `${found}: ${consequence}`, remedy }
}

const variables = [
  'PRAAS_IB_DEVICE',
  'PRAAS_IB_PORT',
  'PRAAS_IB_GID_INDEX',
  'PRAAS_IB_TRAFFIC_CLASS',
  'PRAAS_IB_MEMORY',
] as const

/** The variables that are set, and whether they name what is there. */
export function settings(
  devices: readonly RdmaDevice[],
  environment: Readonly<Record<string, string | undefined>> = process.env,
): Finding[] {
  const set = variables.filter((name) => environment[name] !== undefined && environment[name] !== '')
  if (set.length === 0) return []
  const what = 'RDMA settings'
  const found = set.map((name) => `${name}=${environment[name]}`).join(' ')
  const chosen = environment['PRAAS_IB_DEVICE']
  if (!chosen || devices.some(({ name }) => name === chosen)) return [{ what, state: 'ok', found }]
  const remedy = `there is no device ${chosen}: ${devices.map(({ name }) => name).join(', ') || 'none at all'}`
  return [{ what, state: 'bad', found, remedy }]
}
