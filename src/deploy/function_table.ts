/**
 * Function tables as PraaS has them: JSON that says which function of which shared object goes by which name.
 *
 * ```json
 * { "functions": { "cpp": { "sum": {
 *   "code": { "module": "libsum.so", "function": "add" },
 *   "trigger": { "type": "direct", "nargs": 1 } } } } }
 * ```
 */
import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { describe } from '../codecs.js'
import { DeployError, messageOf } from '../errors.js'

export interface TableEntry {
  /** What it is called by. */
  readonly name: string
  /** Absolute path of its shared object; `module` of the table is relative to the table. */
  readonly library: string
  /** What it is called in the shared object. */
  readonly symbol: string
  /** Place in the table, for messages. */
  readonly where: string
}

const entrySchema = z.object({
  code: z.object({ module: z.string().min(1), function: z.string().min(1) }),
  trigger: z.object({
    type: z.literal('direct', { error: ({ input }) => `expected "direct", received ${shown(input)}` }),
    nargs: z
      .literal(1, { error: ({ input }) => `expected 1, received ${shown(input)}: a call has one input` })
      .default(1),
  }),
})
const entriesSchema = z
  .unknown()
  // A record leaves it out and says nothing.
  .refine((entries) => !Object.hasOwn(Object(entries) as object, '__proto__'), 'no function can be called __proto__')
  .pipe(z.record(z.string().min(1), entrySchema))
const tableSchema = z.object({ functions: z.strictObject({ cpp: entriesSchema }) })

/**
 * @param path  Absolute path of the table.
 * @throws {DeployError} `ERR_DEPLOY_FAILED` naming the place in the table: for other languages than `cpp`, triggers other
 *   than direct ones with one argument, modules that do not exist
 */
export function readFunctionTable(path: string): TableEntry[] {
  const parsed = tableSchema.safeParse(readJson(path))
  if (!parsed.success) throw refused(path, parsed.error.issues)
  const entries = Object.entries(parsed.data.functions.cpp).map(([name, { code }]) => {
    const where = `${path}: functions.cpp.${shortened(name)}`
    return { name, library: resolve(dirname(path), code.module), symbol: code.function, where }
  })
  for (const entry of entries) checkModule(entry)
  return entries
}

function checkModule({ library, where }: TableEntry): void {
  let isFile: boolean | undefined
  try {
    isFile = statSync(library, { throwIfNoEntry: false })?.isFile()
  } catch (error) {
    throw new DeployError('ERR_DEPLOY_FAILED', `${where}.code.module: ${shortened(messageOf(error))}`, { cause: error })
  }
  if (isFile !== true)
    throw new DeployError('ERR_DEPLOY_FAILED', `${where}.code.module: there is no file ${shortened(library)}`)
}

function readJson(path: string): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as unknown
  } catch (error) {
    throw new DeployError('ERR_DEPLOY_FAILED', `cannot read the function table ${path}: ${messageOf(error)}`, {
      cause: error,
    })
  }
}

/** A table may hold anything there, as deep and as long as it likes. */
function shown(input: unknown): string {
  if (typeof input === 'string') return JSON.stringify(shortened(input))
  return typeof input === 'number' || typeof input === 'boolean' ? String(input) : describe(input)
}

const quotedCharacters = 200
const linesInMessage = 20

function shortened(text: string): string {
  return text.length > quotedCharacters ? `${text.slice(0, quotedCharacters)}…` : text
}

function refused(path: string, issues: readonly z.core.$ZodIssue[]): DeployError {
  const lines = issues.flatMap((issue) => {
    const place = issue.path.map((step) => shortened(String(step))).join('.')
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => `${path}: ${place}.${shortened(key)}: the only language of function tables is cpp`)
    }
    return `${path}: ${place === '' ? '' : `${place}: `}${issue.message}`
  })
  const form = `a function table reads {"functions": {"cpp": {NAME: {"code": {"module": FILE, "function": SYMBOL}, "trigger": {"type": "direct", "nargs": 1}}}}}`
  const more = lines.splice(linesInMessage).length
  if (more > 0) lines.push(`… and ${more} more`)
  return new DeployError('ERR_DEPLOY_FAILED', `${lines.join('\n')}\n${form}`)
}
