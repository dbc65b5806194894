import { readFile, writeFile } from 'node:fs/promises'
import type { Argv, CommandModule } from 'yargs'
import { codecByName, codecNames, type CodecName } from '../codecs.js'
import type { KeyInfo } from '../function/context.js'
import { ArgumentError, StateError } from '../errors.js'
import { formatSize, parseSize } from '../units.js'
import { commonOptions, processOption, withProcess, type CommonArguments } from './common.js'
import { note, printJson, printTable } from './output.js'
import { printValue, valueFromText } from './values.js'

interface StateArguments extends CommonArguments {
  readonly process?: string | undefined
}

interface KeyArguments extends StateArguments {
  readonly key: string
  readonly codec: CodecName
  readonly value?: string | undefined
  readonly file?: string | undefined
  readonly out?: string | undefined
}

interface PublishArguments extends KeyArguments {
  readonly capacity?: string | undefined
  readonly end: boolean
}

interface KeysArguments extends StateArguments {
  readonly prefix?: string | undefined
}

const get: CommandModule<object, KeyArguments> = {
  command: 'get <key>',
  describe: 'print the value of a key',
  builder: (yargs) => keyArgument(yargs).option('out', { alias: 'o', type: 'string', describe: 'write it to a file' }),
  handler: (args) =>
    withProcess(args, async ({ state }) => {
      const entry = await state.entry<unknown>(args.key, { codec: args.codec })
      if (!entry) throw new StateError('ERR_STATE_NOT_FOUND', `there is no key ${JSON.stringify(args.key)}`)
      await show(args, entry.value, entry.version)
    }),
}

const set: CommandModule<object, KeyArguments> = {
  command: 'set <key> [value]',
  describe: 'set the value of a key',
  builder: (yargs) =>
    keyArgument(yargs)
      .positional('value', { type: 'string', describe: 'text, or JSON with --codec json' })
      .option('file', { alias: 'f', type: 'string', describe: 'take the value from a file' }),
  handler: async (args) => {
    const value = await newValue(args)
    await withProcess(args, async ({ state }) => {
      const version = await state.set(args.key, value, { codec: args.codec })
      if (args.json) printJson({ version })
      else note(`version ${version}`)
    })
  },
}

const read: CommandModule<object, KeyArguments> = {
  command: 'read <key>',
  describe: 'print the value of a key without waking anybody where it is published',
  builder: (yargs) => keyArgument(yargs).option('out', { alias: 'o', type: 'string', describe: 'write it to a file' }),
  handler: (args) =>
    withProcess(args, async ({ state }) => {
      const entry = await state.read(args.key)
      if (!entry) throw new StateError('ERR_STATE_NOT_FOUND', `there is no key ${JSON.stringify(args.key)}`)
      await show(args, codecByName(args.codec).decode(entry.data), entry.version)
    }),
}

const publish: CommandModule<object, PublishArguments> = {
  command: 'publish <key>',
  describe: 'let clients read a key without asking the process',
  builder: (yargs) =>
    keyArgument(yargs)
      .option('capacity', { type: 'string', describe: 'size of the largest value to be read so, e.g. 64KiB' })
      .option('end', { type: 'boolean', default: false, describe: 'publish it no more' }),
  handler: (args) =>
    withProcess(args, async ({ state }) => {
      if (args.end) {
        const published = await state.unpublish(args.key)
        if (args.json) return printJson({ published: false })
        return note(published ? 'published no more' : 'it was not published')
      }
      const capacity = await state.publish(
        args.key,
        args.capacity === undefined ? {} : { capacity: parseSize(args.capacity, '--capacity') },
      )
      if (args.json) printJson({ published: true, capacity })
      else note(`values of up to ${formatSize(capacity)} can be read`)
    }),
}

const keys: CommandModule<object, KeysArguments> = {
  command: 'keys [prefix]',
  describe: 'list keys',
  builder: (yargs) =>
    processOption(commonOptions(yargs as Argv)).positional('prefix', {
      type: 'string',
      describe: 'only keys that begin so',
    }),
  handler: (args) =>
    withProcess(args, async ({ state }) => {
      const found: KeyInfo[] = []
      for await (const key of state.keys(args.prefix === undefined ? {} : { prefix: args.prefix })) found.push(key)
      if (args.json) return printJson(found)
      printTable(
        ['KEY', 'KIND', 'SIZE', 'VERSION', 'MODIFIED'],
        found.map((key) => [
          key.key,
          key.elementType ?? key.kind,
          formatSize(key.byteLength),
          String(key.version),
          key.modified.toISOString(),
        ]),
      )
    }),
}

export const state: CommandModule = {
  command: 'state <command>',
  describe: 'read and write the state of a process',
  builder: (yargs) =>
    yargs
      .command(get)
      .command(set)
      .command(read)
      .command(publish)
      .command(keys)
      .demandCommand(1, 'state: expected get, set, read, publish or keys')
      .example(`$0 state set config '{"steps":10}' --codec json`, '')
      .example('$0 state get grid --out grid.bin', 'the bytes of a key to a file'),
  handler: () => undefined,
}

async function show({ out, json }: KeyArguments, value: unknown, version: bigint): Promise<void> {
  if (out !== undefined) await writeFile(out, value instanceof Uint8Array ? value : JSON.stringify(value))
  else if (json)
    printJson({ value: value instanceof Uint8Array ? Buffer.from(value).toString('base64') : value, version })
  else printValue(value)
}

function keyArgument(yargs: Argv): Argv<KeyArguments> {
  return processOption(commonOptions(yargs))
    .positional('key', { type: 'string', demandOption: true, describe: 'key' })
    .option('codec', {
      choices: codecNames,
      default: 'raw',
      describe: 'how the value is encoded',
    }) as unknown as Argv<KeyArguments>
}

async function newValue({ value, file, codec }: KeyArguments): Promise<unknown> {
  if ((value === undefined) === (file === undefined)) throw new ArgumentError('give either VALUE or --file')
  if (file === undefined) return valueFromText(value ?? '', codec)
  const bytes = await readFile(file)
  return codec === 'raw' ? bytes : valueFromText(bytes.toString('utf8'), codec)
}
