/** The device, port and address that RDMA takes on this machine. */
import { PraasError } from '../errors.js'
import { native, type RdmaDevice, type RdmaPort, type RdmaSurvey } from '../native/binding.js'

export interface RdmaChoice {
  readonly device: string
  readonly port: number
  readonly gidIndex: number
}

/**
 * As praas and praas-floor choose: what PRAAS_IB_DEVICE, PRAAS_IB_PORT and PRAAS_IB_GID_INDEX say, else the first active
 * port and its routed address.
 *
 * @throws {PraasError} `ERR_UNSUPPORTED` when there is none
 */
export function chosenRdma(
  survey: RdmaSurvey = JSON.parse(native().surveyRdma()) as RdmaSurvey,
  environment: NodeJS.ProcessEnv = process.env,
): RdmaChoice {
  const { PRAAS_IB_DEVICE: device, PRAAS_IB_PORT: port, PRAAS_IB_GID_INDEX: gidIndex } = environment
  for (const candidate of survey.devices ?? []) {
    if (device && candidate.name !== device) continue
    const found = candidate.ports.find(({ number, active }) => (port ? number === Number(port) : active))
    if (found) return { device: candidate.name, port: found.number, gidIndex: gidOf(candidate, found, gidIndex) }
  }
  throw new PraasError(
    'ERR_UNSUPPORTED',
    survey.error ?? 'there is no RDMA device that can be used; see `praas doctor`',
  )
}

function gidOf({ name }: RdmaDevice, { number, ethernet, gids }: RdmaPort, wanted: string | undefined): number {
  if (wanted) return Number(wanted)
  if (!ethernet) return gids[0]?.index ?? 0
  // Several entries of one address differ in their type; of these RoCE v2 comes last.
  const chosen = gids.findLast(({ address }) => address.startsWith('::ffff:')) ?? gids[0]
  if (chosen) return chosen.index
  throw new PraasError('ERR_UNSUPPORTED', `port ${number} of ${name} has no address; see \`praas doctor\``)
}
