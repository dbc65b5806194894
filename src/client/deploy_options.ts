/** What applications are deployed with. */
import { z } from 'zod'
import { codecNames, type CodecName } from '../codecs.js'
import type { DeployRequest, NativeAbi, NativeFunctionRequest } from '../control.js'
import { name, parseOptions, size } from '../options.js'
import type { Size } from '../units.js'
import { absolutePath, withoutUndefined } from './process_options.js'

/** How a native function is called, and what it declares about itself. */
export interface NativeFunctionOptions {
  /** Path or file URL of the shared object that has it, where several do. */
  readonly library?: string | URL
  /** What it is called there. Default: its name. */
  readonly symbol?: string
  /**
   * `raw` is rFaaS' `uint32_t f(void* args, uint32_t size, void* res)`, `c` is PRAAS_FUNCTION of praas.h, `praas` is PraaS'
   * `int f(Invocation, Context&)`. Default: what the library says.
   */
  readonly abi?: NativeAbi
  /** Largest result of a raw function, 1 B … the process's `maxContiguous`. Default: that of the deployment. */
  readonly maxOutput?: Size
  /**
   * May run more than once: a call is repeated when the worker, the host or the connection dies under it. Default: what
   * the library says.
   */
  readonly idempotent?: boolean
  /** How clients encode input and result. Default: `raw`. */
  readonly codec?: CodecName
  /** Codec of the input, where it differs from `codec`. */
  readonly input?: CodecName
  /** Codec of the result, where it differs from `codec`. */
  readonly output?: CodecName
}

export interface DeployOptions {
  /** Path or file URL of a module in TypeScript or JavaScript, of a shared object, or of a PraaS function table. */
  readonly app?: string | URL
  /**
   * Shared objects and function tables (`.json`) with native functions. Workers load copies, so a library may be built
   * anew at any time; one with $ORIGIN in its RUNPATH is loaded from where it lies, and must not change while it is used.
   */
  readonly native?: string | URL | readonly (string | URL)[]
  /** The native functions that are offered, by name. Default: all that the libraries have. */
  readonly functions?: Readonly<Record<string, NativeFunctionOptions>>
  /** Largest result of raw functions that name none, 1 B … the process's `maxContiguous`. Default: 1 MiB, or that. */
  readonly maxOutput?: Size
  /** Default: the file name of `app`, or of the first library, without extension. */
  readonly name?: string
  /** Packages that are not bundled but resolved from the application at run time. */
  readonly external?: readonly string[]
}

const path = z.union([z.string().min(1), z.instanceof(URL)])
const maxOutput = size(1, 2 ** 32 - 1)
const codec = z.enum(codecNames)

const schema = z.object({
  app: path.optional(),
  native: z.union([path, z.array(path)]).optional(),
  functions: z.record(z.string(), z.unknown()).optional(),
  maxOutput: maxOutput.optional(),
  name: name.optional(),
  external: z.array(z.string().min(1)).optional(),
})

const functionSchema = z.object({
  library: path.optional(),
  symbol: z.string().min(1).optional(),
  abi: z.enum(['raw', 'c', 'praas']).optional(),
  maxOutput: maxOutput.optional(),
  idempotent: z.boolean().optional(),
  codec: codec.optional(),
  input: codec.optional(),
  output: codec.optional(),
})

/** @throws {ArgumentError} for an option that is not known or out of bounds */
export function toDeployRequest(options: DeployOptions): DeployRequest {
  const { app, native, functions, maxOutput: maxOutputBytes, ...rest } = parseOptions(schema, options, 'deploy')
  return withoutUndefined({
    ...rest,
    entry: app === undefined ? undefined : absolutePath(app),
    native: native === undefined ? undefined : [native].flat().map(absolutePath),
    functions: functions && Object.fromEntries(Object.entries(functions).map(toFunctionRequest)),
    maxOutputBytes,
  })
}

function toFunctionRequest([name, options]: readonly [string, unknown]): [string, NativeFunctionRequest] {
  const parsed = parseOptions(functionSchema, options, `deploy: function ${name}`)
  const { library, maxOutput: maxOutputBytes, codec, input = codec, output = codec, ...rest } = parsed
  const request = { ...rest, library: library === undefined ? undefined : absolutePath(library), maxOutputBytes }
  return [name, withoutUndefined({ ...request, input, output })]
}
