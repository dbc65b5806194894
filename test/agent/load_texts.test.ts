import { describe, expect, it } from 'vitest'
import { loadTexts } from '../../src/agent/load_texts.js'
import type { LoadedApp } from '../../src/app.js'
import type { Application } from '../../src/deploy/application.js'
import type { NativeFunction } from '../../src/deploy/native_functions.js'
import { ArgumentError } from '../../src/errors.js'

const MiB = 2 ** 20
const bundle = { path: '/apps/0/app.mjs', hash: 'ab', byteLength: 1, exports: ['add'], inputs: [] }

function made(fields: Partial<NativeFunction>): NativeFunction {
  const always = { name: 'f', symbol: 'f', abi: 'raw', flags: 0, maxOutputBytes: undefined } as const
  return { ...always, library: '/lib.so', path: '/apps/0/lib.so', hash: '0', ...fields }
}

function application(functions: readonly NativeFunction[], app?: Application['bundle']): Application {
  return { name: 'app', entry: '/srv/app.ts', hash: '0', bundle: app, functions }
}

function nativeText(functions: readonly NativeFunction[], maxContiguousBytes = 64 * MiB): string {
  return loadTexts(application(functions), { control: 'url', checkViews: false, maxContiguousBytes }).native
}

describe('the text for native workers', () => {
  it('has a line per function', () => {
    const functions = [
      made({ name: 'a b', symbol: 'ab', maxOutputBytes: 2 * MiB, flags: 514 }),
      made({ name: 'c', abi: 'c' }),
      made({ name: 'd', abi: 'praas' }),
    ]
    expect(nativeText(functions).split('\n')).toEqual([
      'function name=a%20b symbol=ab library=%2Fapps%2F0%2Flib.so abi=raw maxOutput=2097152 flags=514',
      'function name=c symbol=f library=%2Fapps%2F0%2Flib.so abi=c flags=0',
      'function name=d symbol=f library=%2Fapps%2F0%2Flib.so abi=adapter flags=0',
    ])
    expect(nativeText([])).toBe('')
  })

  it('bounds results by 1 MiB, or by what the process takes in one piece', () => {
    expect(nativeText([made({})])).toContain(`maxOutput=${MiB}`)
    expect(nativeText([made({})], 4096)).toContain('maxOutput=4096')
    expect(nativeText([made({ maxOutputBytes: 4096 })], 4096)).toContain('maxOutput=4096')
    expect(() => nativeText([made({ maxOutputBytes: 2 * MiB })], MiB)).toThrow(
      'function f has maxOutput 2 MiB, and the process takes 1 MiB in one piece; create it with a larger maxContiguous',
    )
  })

  it('fits into the line that assigns a process', () => {
    const functions = Array.from({ length: 1024 }, (_, index) =>
      made({ name: `function_${index}`, symbol: `function_${index}` }),
    )
    expect(nativeText(functions).split('\n')).toHaveLength(1024)
    const long = functions.map((each) => ({ ...each, path: `/${'long/'.repeat(100)}lib.so` }))
    expect(() => nativeText(long)).toThrow(ArgumentError)
    expect(() => nativeText(long)).toThrow('names and paths of the 1024 native functions take')
  })
})

it('the text for Node workers names the native functions they can call', () => {
  const functions = [made({ name: 'f', flags: 256 })]
  const options = { control: 'url', checkViews: true, maxContiguousBytes: MiB }
  expect(JSON.parse(loadTexts(application(functions, bundle), options).app) as LoadedApp).toEqual({
    name: 'app',
    bundle: '/apps/0/app.mjs',
    root: '/srv',
    entry: '/srv/app.ts',
    hash: 'ab',
    native: [{ name: 'f', flags: 256 }],
    control: 'url',
    checkViews: true,
  })
  expect(loadTexts(application(functions), options).app).toBe('')
})
