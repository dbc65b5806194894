/** How programs reach a cluster. */
import { z } from 'zod'
import { defaultRuntimeDirectory, RuntimeDirectory } from '../agent/runtime_directory.js'
import { abortSignal, parseOptions, timeout } from '../options.js'
import { abortable } from './abortable.js'
import { Cluster } from './cluster.js'
import { ControlClient, parseUrl } from './control_client.js'
import { DirectoryControl } from './directory_control.js'
import { dataShape, toLinkOptions, type DataOptions } from './process_options.js'

export interface ConnectOptions extends DataOptions {
  /**
   * Of the cluster, or one that `process.token` has made: then only that process is there, and only what the token allows.
   * Default: PRAAS_TOKEN; else that of the runtime directory, which is shown to clusters of this user on this machine alone.
   */
  readonly token?: string
  /** Where to look for clusters of this machine. Default: PRAAS_RUNTIME_DIR, `$XDG_RUNTIME_DIR/praas` or `/tmp/praas-UID`. */
  readonly runtimeDir?: string | undefined
  /** For the first answer of the cluster. Default: 10 s. */
  readonly timeoutMs?: number | string
  readonly signal?: AbortSignal
}

const schema = z.object({
  ...dataShape,
  token: z.string().min(1).optional(),
  runtimeDir: z.string().min(1).optional(),
  timeoutMs: timeout.optional(),
  signal: abortSignal.optional(),
})

/**
 * Connects to a cluster.
 *
 * @param url  What `praas run` printed: `praas+unix:PATH`, or `http://HOST:PORT` for another machine. Default: PRAAS_URL,
 *   else whatever runs for this user on this machine.
 * @throws {ConnectionError} `ERR_CLUSTER_UNREACHABLE` · `ERR_TOKEN_INVALID` · `ERR_TOKEN_EXPIRED`
 */
export async function connect(url?: string, options: ConnectOptions = {}): Promise<Cluster> {
  const {
    token = process.env['PRAAS_TOKEN'],
    runtimeDir,
    timeoutMs = 10_000,
    signal,
    ...data
  } = parseOptions(schema, options, 'connect')
  signal?.throwIfAborted()
  const directory = runtimeDir ?? defaultRuntimeDirectory()
  const target = url ?? (runtimeDir === undefined ? process.env['PRAAS_URL'] : undefined)
  const control =
    target === undefined
      ? new DirectoryControl(directory, token)
      : new ControlClient(target, token ?? tokenOf(target, directory))
  try {
    const health = control.health(timeoutMs)
    await (signal ? abortable<unknown>(health, signal) : health)
  } catch (error) {
    await control.close()
    throw error
  }
  return new Cluster(control, toLinkOptions(data), target === undefined ? directory : undefined)
}

/**
 * The token of the runtime directory a control socket lies in, whichever way that is written; over the network that of the user's own, if the cluster at
 * this address is one of it that lives. Whoever else might answer there could use it.
 */
function tokenOf(url: string, directory: string): string {
  const { socketPath } = parseUrl(url)
  if (socketPath !== undefined) {
    const around = /^(.*)\/agents\/[^/]+\/sock$/.exec(socketPath)?.[1]
    return (around === undefined ? undefined : RuntimeDirectory.find(around)?.token()) ?? ''
  }
  const own = RuntimeDirectory.find(directory)
  return own?.agents().some(({ listen }) => listen !== undefined && listen === originOf(url)) === true
    ? own.token()
    : ''
}

function originOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).origin : undefined
}
