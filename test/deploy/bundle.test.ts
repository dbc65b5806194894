import { execFile } from 'node:child_process'
import { existsSync, readFileSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { bundleApp, type Bundle } from '../../src/deploy/bundle.js'
import { hasNativeParts } from '../../src/deploy/external_packages.js'
import { DeployError } from '../../src/errors.js'
import { packageRoot } from '../../src/package.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

async function bundle(app: string, external?: string[]): Promise<Bundle> {
  return bundleApp({ entry: join(app, 'app.ts'), folder: join(app, 'out'), ...(external ? { external } : {}) })
}

/** Imports the bundle as a worker does, in an OS process of its own, and evaluates an expression on its exports. */
async function evaluate(made: Bundle, expression: string): Promise<unknown> {
  const program = `
    process.setSourceMapsEnabled(true)
    const app = await import(${JSON.stringify(pathToFileURL(made.path).href)})
    const caught = async (call) => { try { await call(); return undefined } catch (error) { return error.stack } }
    process.stdout.write(JSON.stringify(await (${expression})) ?? 'null')`
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '--eval', program])
  return JSON.parse(stdout) as unknown
}

async function refusal(app: string): Promise<string> {
  const failed = bundle(app)
  await expect(failed).rejects.toThrow(DeployError)
  return failed.then(String, (error: Error) => error.message)
}

describe('what a module says about its place', () => {
  const files = {
    'app.ts': `#!/usr/bin/env node
import { where } from './lib/where.js'
import commonJs from 'cjs-dep'
import { readFileSync } from 'node:fs'
export const facts = () => ({
  url: import.meta.url,
  dirname: import.meta.dirname,
  filename: import.meta.filename,
  lib: where(),
  commonJs: commonJs(),
  data: readFileSync(new URL('./data.txt', import.meta.url), 'utf8'),
})`,
    'lib/where.ts': 'export function where(): string { return import.meta.url }',
    'data.txt': 'beside the source',
    'node_modules/cjs-dep/package.json': '{ "name": "cjs-dep", "main": "index.js" }',
    'node_modules/cjs-dep/index.js': `'use strict'
const path = require('path')
module.exports = () => [__dirname, path.basename(__filename), typeof require]`,
  }

  it('stays what it is in the sources', async () => {
    const app = temporaryFolder()
    writeFiles(app, files)
    expect(await evaluate(await bundle(app), 'app.facts()')).toEqual({
      url: pathToFileURL(join(app, 'app.ts')).href,
      dirname: app,
      filename: join(app, 'app.ts'),
      lib: pathToFileURL(join(app, 'lib/where.ts')).href,
      commonJs: [join(app, 'node_modules/cjs-dep'), 'index.js', 'function'],
      data: 'beside the source',
    })
  })

  it('does not get in the way of names of its own', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `
import { dirname } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createRequire } from 'node:module'
const __dirname = dirname(fileURLToPath(import.meta.url))
const require = createRequire(import.meta.url)
export const own = () => [__dirname, require('./config.json').name]`,
      'config.json': '{ "name": "configured" }',
    })
    expect(await evaluate(await bundle(app), 'app.own()')).toEqual([app, 'configured'])
  })
})

describe('what applications are written with', () => {
  it('works: JSON, dynamic import, top-level await, cycles, TypeScript', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `
import config from './config.json' with { type: 'json' }
import { even } from './even.js'
enum Mode { Fast = 3 }
const settled: string = await Promise.resolve('settled')
export const facts = async () => ({ config, settled, mode: Mode.Fast, even: even(10), late: (await import('./late.js')).late })`,
      'config.json': '{ "steps": 3 }',
      'even.ts': `import { odd } from './odd.js'
export function even(n: number): boolean { return n === 0 || odd(n - 1) }`,
      'odd.ts': `import { even } from './even.js'
export function odd(n: number): boolean { return n !== 0 && even(n - 1) }`,
      'late.ts': `export const late = await Promise.resolve('late')`,
    })
    const made = await bundle(app)
    expect(made.exports).toEqual(['facts'])
    expect(await evaluate(made, 'app.facts()')).toEqual({
      config: { steps: 3 },
      settled: 'settled',
      mode: 3,
      even: true,
      late: 'late',
    })
  })

  it('keeps lines of the sources in stacks', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `// A comment.
export { boom } from './lib/boom.js'
export async function later(): Promise<void> {
  const { boom } = await import('./lib/boom.js')
  boom()
}`,
      'lib/boom.ts': `interface Removed { by: 'types' }

export function boom(): never {
  throw new RangeError(import.meta.filename)
}`,
    })
    const stack = await evaluate(await bundle(app), 'caught(app.later)')
    expect(stack).toMatch(/^RangeError: .*boom\.ts/)
    expect(stack).toContain(`${join(app, 'lib/boom.ts')}:4:9`)
    expect(stack).toContain(`${join(app, 'app.ts')}:5:3`)
  })
})

describe('packages that cannot be bundled', () => {
  it('are loaded from the application: sharp works', async () => {
    const app = temporaryFolder()
    symlinkSync(join(packageRoot, 'node_modules'), join(app, 'node_modules'))
    writeFiles(app, {
      'app.ts': `
import sharp from 'sharp'
export const size = async () => {
  const image = sharp({ create: { width: 4, height: 2, channels: 3, background: 'red' } })
  return (await sharp(await image.png().toBuffer()).metadata()).width
}`,
    })
    const made = await bundle(app)
    expect(readFileSync(made.path, 'utf8')).toContain('from "file://')
    expect(made.inputs.filter((path) => path.includes('sharp'))).toEqual([])
    expect(await evaluate(made, 'app.size()')).toBe(4)
  })

  it('are recognised by what they contain', () => {
    const folder = temporaryFolder()
    const manifests: Record<string, object | undefined> = {
      gyp: undefined,
      flagged: { gypfile: true },
      helper: { dependencies: { 'node-gyp-build': '4' } },
      platform: { optionalDependencies: { '@x/y-linux-x64': '1' } },
      plain: { dependencies: { left: '1' } },
    }
    for (const [name, manifest] of Object.entries(manifests)) {
      writeFiles(folder, { [`node_modules/${name}/package.json`]: JSON.stringify({ name, ...manifest }) })
    }
    writeFiles(folder, {
      'node_modules/gyp/binding.gyp': '{}',
      'node_modules/@s/pre/package.json': '{}',
      'node_modules/@s/pre/prebuilds/x': '',
      'node_modules/void/package.json': 'null',
    })
    const native = (name: string): boolean => hasNativeParts(join(folder, 'node_modules', name, 'lib/index.js'))
    expect(['gyp', 'flagged', 'helper', 'platform', '@s/pre'].filter((name) => !native(name))).toEqual([])
    expect(native('plain')).toBe(false)
    // The bundler takes such a manifest for an empty one.
    expect(native('void')).toBe(false)
    expect(hasNativeParts(join(folder, 'app.ts'))).toBe(false)
  })

  it('can be named, for import and for require', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `
import { left } from 'left-out'
import viaRequire from 'requires-it'
export const facts = () => [left(), viaRequire()]`,
      'node_modules/left-out/package.json':
        '{ "name": "left-out", "type": "module", "exports": { "import": "./esm.js", "require": "./cjs.cjs" } }',
      'node_modules/left-out/esm.js': 'export const left = () => "esm"',
      'node_modules/left-out/cjs.cjs': 'exports.left = () => "cjs"',
      'node_modules/requires-it/package.json': '{ "name": "requires-it" }',
      'node_modules/requires-it/index.js': 'module.exports = () => require("left-out").left()',
    })
    const made = await bundle(app, ['left-out'])
    expect(made.inputs.some((path) => path.includes('left-out'))).toBe(false)
    expect(await evaluate(made, 'app.facts()')).toEqual(['esm', 'cjs'])
  })
})

describe('this package in an application', () => {
  it('comes without what the application does not use', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `
import { defineFunction, StateError, type Context } from 'praas'
export const f = defineFunction({ codec: 'json' }, (_: unknown, ctx: Context) => ctx.processId)
export const family = () => StateError.name`,
    })
    const made = await bundle(app)
    const code = readFileSync(made.path, 'utf8')
    expect(code).not.toContain('dist/index.js')
    expect(await evaluate(made, '[app.family(), app.f.name, app.f(0, { processId: "p" })]')).toEqual([
      'StateError',
      '',
      'p',
    ])
  })

  it('comes as a whole when the application connects to others', async () => {
    const app = temporaryFolder()
    writeFiles(app, { 'app.ts': `import { connect } from 'praas'\nexport const kind = () => typeof connect` })
    expect(await evaluate(await bundle(app), 'app.kind()')).toBe('function')
  })
})

describe('bundles', () => {
  it('are named by their contents and written once', async () => {
    const app = temporaryFolder()
    writeFiles(app, { 'app.ts': 'export const f = () => 1' })
    const [one, two] = await Promise.all([bundle(app), bundle(app)])
    expect(one).toEqual(two)
    expect(existsSync(`${one.path}.map`)).toBe(true)
    writeFiles(app, { 'app.ts': 'export const f = () => 2' })
    expect((await bundle(app)).hash).not.toBe(one.hash)
  })

  it('name the files they were made of, whatever imports add to them', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `${['lib.js?v=1', 'lib.js#2', 'a#b.js', 'c?d/e.js', 'g:h/i.js'].map((name) => `import './${name}'`).join('\n')}
export const f = () => 1`,
      'lib.js': '',
      'a#b.js': '',
      'c?d/e.js': `import './f.js?v=1'`,
      'c?d/f.js': '',
      'g:h/i.js': '',
    })
    expect([...(await bundle(app)).inputs].sort()).toEqual(
      ['a#b.js', 'app.ts', 'c?d/e.js', 'c?d/f.js', 'g:h/i.js', 'lib.js'].map((name) => join(app, name)),
    )
  })

  it('are refused with file and line of an import that is not there', async () => {
    const app = temporaryFolder()
    writeFiles(app, {
      'app.ts': `import './inner.js'`,
      'inner.ts': `// first\nimport { x } from 'no-such-package'\nexport const y = x`,
    })
    const message = await refusal(app)
    expect(message).toContain(`${join(app, 'inner.ts')}:2:`)
    expect(message).toContain('Could not resolve "no-such-package"')
  })

  it('are refused with file and line of a syntax error, and without an entry', async () => {
    const app = temporaryFolder()
    writeFiles(app, { 'app.ts': 'export const f = () => {\n  const = 5\n}' })
    expect(await refusal(app)).toContain(`${join(app, 'app.ts')}:2:`)
    expect(await refusal(join(app, 'nowhere'))).toContain('there is no application')
  })
})
