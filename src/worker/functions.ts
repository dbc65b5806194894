/** The functions of an application. */
import { packTraits, type FunctionTraits } from '../codecs.js'
import { DeployError } from '../errors.js'
import { traitsOf } from '../function/define.js'
import { isName, maxNameBytes } from '../limits.js'

export type Handler = (input: unknown, context: unknown) => unknown

export interface AppFunction {
  readonly name: string
  readonly handler: Handler
  readonly traits: FunctionTraits
}

/**
 * The exported functions of a module by name, in the order all workers register them: sorted, so that an index means the
 * same function everywhere.
 *
 * @throws {DeployError} when there is none, or what one is called cannot be a name
 */
export function collectFunctions(module: Readonly<Record<string, unknown>>): AppFunction[] {
  const functions: AppFunction[] = []
  for (const name of Object.keys(module).sort()) {
    const exported = module[name]
    if (typeof exported !== 'function' || isClass(exported)) continue
    if (!isName(name)) {
      throw new DeployError(
        'ERR_DEPLOY_FAILED',
        `function ${JSON.stringify(name.slice(0, 80))}…: names have 1 … ${maxNameBytes} bytes of UTF-8 without NUL`,
      )
    }
    functions.push({ name, handler: exported as Handler, traits: traitsOf(exported) })
  }
  if (functions.length === 0) throw new DeployError('ERR_DEPLOY_FAILED', 'the application exports no function')
  return functions
}

/** As the native side registers them. */
export function registration(functions: readonly AppFunction[]): { name: string; flags: number }[] {
  return functions.map(({ name, traits }) => ({ name, flags: packTraits(traits) }))
}

function isClass(value: object): boolean {
  return /^class\b/.test(Function.prototype.toString.call(value))
}
