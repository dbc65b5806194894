import { createReadStream, createWriteStream } from 'node:fs'
import { readFile, stat, writeFile } from 'node:fs/promises'
import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { CommandModule } from 'yargs'
import type { FunctionSignature, Process } from '../client/process.js'
import { ArgumentError } from '../errors.js'
import { commonOptions, processOption, timeoutFrom, withProcess, type CommonArguments } from './common.js'
import { printJson, progressBar } from './output.js'
import { printValue, valueFromText } from './values.js'

interface InvokeArguments extends CommonArguments {
  readonly function: string
  readonly data?: string | undefined
  readonly file?: string | undefined
  readonly out?: string | undefined
  readonly process?: string | undefined
  readonly timeout?: string | undefined
}

export const invoke: CommandModule<object, InvokeArguments> = {
  command: 'invoke <function> [data]',
  describe: 'call a function and print its result',
  builder: (yargs) =>
    processOption(commonOptions(yargs))
      .positional('function', { type: 'string', demandOption: true, describe: 'name of the function' })
      .positional('data', {
        type: 'string',
        describe: 'input: text, or JSON when the function takes more than bytes; - is stdin',
      })
      .option('file', { alias: 'f', type: 'string', describe: 'take the input from a file; - is stdin' })
      .option('out', { alias: 'o', type: 'string', describe: 'write the result to a file' })
      .option('timeout', { alias: 't', type: 'string', describe: 'deadline, such as 500ms or 2min' })
      .example(`$0 invoke hello '"Ada"'`, 'JSON, because hello declares that codec')
      .example('$0 invoke thumbnail --file big.png --out small.jpg', 'bytes from and to files'),
  handler: async (args) => {
    const input = inputFrom(args)
    await withProcess(args, async (process) => {
      const signature = await process.signature(args.function)
      if (signature.stream) await invokeStreaming(process, args, input)
      else await invokeOnce(process, args, input, signature)
    })
  },
}

/** Where the input comes from: nowhere, the command line, stdin, or a file. */
type Input = { readonly text?: string; readonly stdin?: true; readonly file?: string }

function inputFrom({ data, file }: InvokeArguments): Input {
  // Whether as DATA or after --file, yargs makes an empty text of a lone `-`.
  if (process.argv.includes('-')) return { stdin: true }
  if (data !== undefined && file !== undefined) throw new ArgumentError('give either DATA or --file, not both')
  if (file !== undefined) return { file }
  return data === undefined ? {} : { text: data }
}

async function invokeOnce(
  process: Process,
  args: InvokeArguments,
  input: Input,
  signature: FunctionSignature,
): Promise<void> {
  const value = await readInput(input, signature)
  const started = performance.now()
  const output = await process.invoke<unknown>(args.function, value, timeoutFrom(args.timeout))
  const durationMs = performance.now() - started
  if (args.out !== undefined) {
    await writeFile(args.out, output instanceof Uint8Array ? output : JSON.stringify(output))
    if (args.json) printJson({ out: args.out, durationMs })
  } else if (args.json) {
    printJson({ output: output instanceof Uint8Array ? Buffer.from(output).toString('base64') : output, durationMs })
  } else {
    printValue(output)
  }
}

async function readInput({ text, stdin, file }: Input, { input: codec }: FunctionSignature): Promise<unknown> {
  if (text !== undefined) return valueFromText(text, codec)
  if (stdin === undefined && file === undefined) return undefined
  const bytes = file === undefined ? await readStdin() : await readFile(file)
  return codec === 'raw' ? bytes : valueFromText(bytes.toString('utf8'), codec)
}

async function readStdin(): Promise<Buffer> {
  const chunks: Buffer[] = []
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer)
  return Buffer.concat(chunks)
}

async function invokeStreaming(process: Process, args: InvokeArguments, input: Input): Promise<void> {
  const bytes = input.file === undefined ? undefined : (await stat(input.file)).size
  const progress = progressBar(args.function, bytes)
  const out: Writable = args.out === undefined ? globalThis.process.stdout : createWriteStream(args.out)
  try {
    const source = counted(streamInput(input), (count) => progress.add(count))
    for await (const chunk of process.invokeStream(args.function, source, timeoutFrom(args.timeout))) {
      if (!out.write(chunk)) await once(out, 'drain')
    }
    if (args.out !== undefined) {
      out.end()
      await once(out, 'finish')
    }
  } finally {
    progress.end()
  }
}

function streamInput({ text, stdin, file }: Input): AsyncIterable<Uint8Array> | Iterable<Uint8Array> {
  if (stdin) return process.stdin as AsyncIterable<Uint8Array>
  if (file !== undefined) return createReadStream(file, { highWaterMark: 256 * 1024 })
  return text === undefined ? [] : [Buffer.from(text)]
}

async function* counted(
  source: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  count: (bytes: number) => void,
): AsyncGenerator<Uint8Array, void, void> {
  for await (const chunk of source) {
    yield chunk
    count(chunk.byteLength)
  }
}
