// The process of a peer's server: node server.js MODULE [ARGUMENT]. Ends with its parent.

interface ServerModule {
  /** Resolves when calls are served, with what clients connect to. */
  readonly serve: (argument: string) => Promise<string>
}

const [, , module = '', argument = ''] = process.argv
process.on('disconnect', () => process.exit())
// With a listener the channel keeps the process, whatever its server does.
process.on('message', () => undefined)
const { serve } = (await import(new URL(`./${module}.js`, import.meta.url).href)) as ServerModule
process.send?.({ address: await serve(argument) })
