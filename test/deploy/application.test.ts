import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import type { DeployRequest } from '../../src/control.js'
import { describeApplication, loadApplication, type Application } from '../../src/deploy/application.js'
import { ArgumentError, DeployError } from '../../src/errors.js'
import { compileLibrary, rawFunction } from '../support/compile.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

/** A folder with libraries that have `fft` and `mean`, `fft` and `sum`; a module that exports `add`; a function table. */
function files(): { folder: string; module: string; first: string; second: string; table: string } {
  const folder = temporaryFolder()
  const [first, second] = [join(folder, 'libfirst.so'), join(folder, 'libsecond.so')]
  compileLibrary(first, rawFunction('fft') + rawFunction('mean'))
  compileLibrary(second, rawFunction('fft') + rawFunction('sum'))
  const trigger = { type: 'direct', nargs: 1 }
  const total = { code: { module: 'libsecond.so', function: 'sum' }, trigger }
  writeFiles(folder, {
    'app.ts': 'export const add = (): void => undefined',
    'functions.json': JSON.stringify({ functions: { cpp: { total } } }),
  })
  return { folder, module: join(folder, 'app.ts'), first, second, table: join(folder, 'functions.json') }
}

async function load(request: DeployRequest, folder: string): Promise<Application> {
  const apps = join(folder, 'apps')
  mkdirSync(apps, { recursive: true })
  return loadApplication(request, apps)
}

const names = (app: Application): string[] => app.functions.map(({ name }) => name)

describe('applications', () => {
  it('are modules, libraries or tables by their entry', async () => {
    const { folder, module, first, table } = files()
    const typescript = await load({ entry: module }, folder)
    expect(describeApplication(typescript)).toEqual({
      name: 'app',
      entry: module,
      hash: typescript.bundle?.hash,
      language: 'typescript',
      exports: ['add'],
      bundleBytes: typescript.bundle?.byteLength,
      native: [],
    })
    const native = await load({ entry: first }, folder)
    expect(describeApplication(native)).toEqual({
      name: 'libfirst',
      entry: first,
      hash: expect.stringMatching(/^[0-9a-f]{16}$/) as string,
      language: 'native',
      exports: ['fft', 'mean'],
      bundleBytes: 0,
      native: [
        { name: 'fft', library: first, symbol: 'fft', abi: 'raw' },
        { name: 'mean', library: first, symbol: 'mean', abi: 'raw' },
      ],
    })
    expect(describeApplication(await load({ entry: table }, folder))).toMatchObject({
      name: 'functions',
      language: 'native',
      exports: ['total'],
      native: [{ name: 'total', symbol: 'sum' }],
    })
  })

  it('are modules with native functions', async () => {
    const { folder, module, first, table } = files()
    const app = await load({ entry: module, native: [first, table], name: 'both' }, folder)
    expect(describeApplication(app)).toMatchObject({
      name: 'both',
      entry: module,
      language: 'mixed',
      exports: ['add', 'fft', 'mean', 'total'],
    })
    expect(app.hash).not.toBe(app.bundle?.hash)
  })

  it('are libraries alone', async () => {
    const { folder, first, second } = files()
    const functions = { fft: { library: second }, mean: { maxOutputBytes: 8 } }
    const app = await load({ native: [first, second], functions, maxOutputBytes: 16 }, folder)
    expect(app).toMatchObject({ name: 'libfirst', entry: first })
    expect(app.functions).toMatchObject([
      { name: 'fft', library: second, maxOutputBytes: 16 },
      { name: 'mean', library: first, maxOutputBytes: 8 },
    ])
    expect(names(await load({ functions: { sum: { library: second } } }, folder))).toEqual(['sum'])
  })

  it('have another hash when their contents or functions change', async () => {
    const { folder, first } = files()
    const whole = await load({ entry: first }, folder)
    expect((await load({ entry: first, name: 'other' }, folder)).hash).toBe(whole.hash)
    expect((await load({ entry: first, functions: { fft: {} } }, folder)).hash).not.toBe(whole.hash)
    compileLibrary(first, rawFunction('fft') + rawFunction('mean', 1))
    const rebuilt = await load({ entry: first }, folder)
    expect(rebuilt.hash).not.toBe(whole.hash)
    expect(rebuilt.functions[0]?.path).not.toBe(whole.functions[0]?.path)
  })

  it('have each name once', async () => {
    const { folder, module, first, second } = files()
    const twice = load({ native: [first, second] }, folder)
    await expect(twice).rejects.toThrow(`function fft is offered by ${first} (fft) and by ${second} (fft)`)
    const functions = { add: { symbol: 'mean' } }
    const both = load({ entry: module, native: [first], functions }, folder)
    await expect(both).rejects.toThrow(DeployError)
    await expect(both).rejects.toThrow(`function add is exported by ${module} and offered by ${first}`)
  })

  it('are refused when there is nothing in them', async () => {
    const { folder, module } = files()
    await expect(load({}, folder)).rejects.toThrow(ArgumentError)
    await expect(load({ native: [] }, folder)).rejects.toThrow('there is nothing to deploy')
    await expect(load({ entry: module, functions: { f: {} } }, folder)).rejects.toThrow('`functions` are native ones')
    await expect(load({ entry: join(folder, 'none.json') }, folder)).rejects.toThrow('cannot read the function table')
  })
})
