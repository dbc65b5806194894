/** How workers load applications. */
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { clusterForTest } from '../support/cluster.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

/** What function `f` of an application returns as JSON. */
async function resultOf(source: string): Promise<unknown> {
  const folder = temporaryFolder()
  writeFiles(folder, { 'app.ts': `import * as praas from 'praas'\n${source}` })
  const { cluster } = await clusterForTest({ app: join(folder, 'app.ts') })
  const process = await cluster.process('p')
  return process.invoke('f')
}

it('an application that awaits at its top level is evaluated once', async () => {
  const source = `
    const counted = globalThis as { evaluations?: number }
    counted.evaluations = (counted.evaluations ?? 0) + 1
    const later = await new Promise<string>((resolve) => setTimeout(() => resolve('later'), 1))
    export const f = praas.defineFunction({ codec: 'json' }, () => [later, counted.evaluations])`
  expect(await resultOf(source)).toEqual(['later', 1])
})

it('errors are of the classes that the application imports', async () => {
  const source = `
    export const fails = () => { throw new Error('no') }
    export const f = praas.defineFunction({ codec: 'json' }, async (_: unknown, ctx: praas.Context) => {
      const other = await ctx.process('other')
      const caught: unknown[] = []
      try { ctx.state.read('k', -1, 1) } catch (error) { caught.push(error) }
      await other.invoke('fails').catch((error) => caught.push(error))
      await praas.connect('praas+unix:/nowhere').catch((error) => caught.push(error))
      return [
        caught[0] instanceof praas.ArgumentError,
        caught[1] instanceof praas.FunctionError,
        caught[2] instanceof praas.ConnectionError,
      ]
    })`
  expect(await resultOf(source)).toEqual([true, true, true])
})

it('stacks name lines of the sources', async () => {
  const thrown = `
export const f = praas.defineFunction({ codec: 'json' }, (): string => {
  interface Erased { by: 'types' }
  return new Error('here').stack ?? ''
})`
  expect(await resultOf(thrown)).toContain('app.ts:5:10')
})
