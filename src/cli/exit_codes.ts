/** What the status of the command says. Scripts may rely on it. */
import { codeOf } from '../errors.js'

export const exitCodes = {
  ok: 0,
  failed: 1,
  usage: 2,
  notFound: 3,
  unreachable: 4,
  denied: 5,
  damaged: 6,
  interrupted: 130,
} as const

export const exitCodeHelp = `Exit status: ${exitCodes.ok} ok · ${exitCodes.failed} the call or command failed · ${exitCodes.usage} wrong usage · ${exitCodes.notFound} no such process, function or key · ${exitCodes.unreachable} no cluster answers · ${exitCodes.denied} not permitted · ${exitCodes.damaged} damaged memory of a process · ${exitCodes.interrupted} interrupted`

const byCode: Readonly<Record<string, number>> = {
  ERR_ARGUMENT_INVALID: exitCodes.usage,
  ERR_NAME_INVALID: exitCodes.usage,
  ERR_PROCESS_UNKNOWN: exitCodes.notFound,
  ERR_FUNCTION_UNKNOWN: exitCodes.notFound,
  ERR_STATE_NOT_FOUND: exitCodes.notFound,
  ERR_APP_UNKNOWN: exitCodes.notFound,
  ERR_CLUSTER_UNREACHABLE: exitCodes.unreachable,
  ERR_CONNECTION_LOST: exitCodes.unreachable,
  ERR_CONNECTION_TIMEOUT: exitCodes.unreachable,
  ERR_HOST_LOST: exitCodes.unreachable,
  ERR_TOKEN_INVALID: exitCodes.denied,
  ERR_TOKEN_EXPIRED: exitCodes.denied,
  ERR_NOT_PERMITTED: exitCodes.denied,
  ERR_RUNTIME_DIRECTORY: exitCodes.denied,
  ERR_SEGMENT_INVALID: exitCodes.damaged,
}

export function exitCodeOf(error: unknown): number {
  return byCode[codeOf(error) ?? ''] ?? exitCodes.failed
}
