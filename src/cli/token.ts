import type { Argv, CommandModule } from 'yargs'
import { tokenVerbs, type TokenVerb } from '../token.js'
import { commonOptions, withCluster, type CommonArguments } from './common.js'
import { printJson } from './output.js'

interface TokenArguments extends CommonArguments {
  readonly id: string
  readonly verbs: readonly string[]
  readonly ttl: string
}

export const token: CommandModule<object, TokenArguments> = {
  command: 'token <id>',
  describe: 'print a token that allows somebody else some things, of one process, for a time',
  builder: (yargs) =>
    (commonOptions(yargs as Argv) as Argv<TokenArguments>)
      .positional('id', { type: 'string', demandOption: true, describe: 'process id' })
      .option('verbs', {
        type: 'string',
        array: true,
        default: ['invoke'],
        coerce: (given: readonly string[]) => given.flatMap((verbs) => verbs.split(',')),
        describe: `what it allows: ${tokenVerbs.join(', ')}`,
      })
      .option('ttl', { type: 'string', default: '1h', describe: 'for how long; its connections end then' })
      .example('$0 token grid --verbs invoke,state-read --ttl 8h', 'for PRAAS_TOKEN of whoever shall call it'),
  handler: (args) =>
    withCluster(args, async (cluster) => {
      const process = await cluster.process(args.id, { create: false })
      const text = await process.token({ verbs: args.verbs as TokenVerb[], ttlMs: args.ttl })
      if (args.json) printJson({ process: args.id, verbs: args.verbs, ttl: args.ttl, token: text })
      else globalThis.process.stdout.write(`${text}\n`)
    }),
}
