import { join } from 'node:path'
import { expect, it } from 'vitest'
import { readFunctionTable } from '../../src/deploy/function_table.js'
import { DeployError } from '../../src/errors.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

const direct = { type: 'direct', nargs: 1 }
const add = { code: { module: 'libsum.so', function: 'add' }, trigger: direct }

function tableOf(contents: unknown): string {
  const folder = temporaryFolder()
  writeFiles(folder, {
    'functions.json': typeof contents === 'string' ? contents : JSON.stringify(contents),
    'libsum.so': '',
    'lib/libmean.so': '',
  })
  return join(folder, 'functions.json')
}

function refusal(contents: unknown): string {
  try {
    readFunctionTable(tableOf(contents))
  } catch (error) {
    expect(error).toBeInstanceOf(DeployError)
    expect(error).toMatchObject({ code: 'ERR_DEPLOY_FAILED' })
    return (error as Error).message
  }
  throw new Error('it was accepted')
}

it('says which function of which shared object goes by which name', () => {
  const mean = { code: { module: 'lib/libmean.so', function: 'mean_of' }, trigger: { type: 'direct' } }
  const table = tableOf({ functions: { cpp: { sum: { name: 'sum', ...add }, mean } }, other: 1 })
  const folder = join(table, '..')
  expect(readFunctionTable(table)).toEqual([
    { name: 'sum', library: join(folder, 'libsum.so'), symbol: 'add', where: `${table}: functions.cpp.sum` },
    { name: 'mean', library: join(folder, 'lib/libmean.so'), symbol: 'mean_of', where: `${table}: functions.cpp.mean` },
  ])
})

it('takes absolute paths as they are', () => {
  const other = join(tableOf({}), '..', 'libsum.so')
  const table = tableOf({ functions: { cpp: { sum: { ...add, code: { module: other, function: 'add' } } } } })
  expect(readFunctionTable(table)).toMatchObject([{ library: other }])
})

it.each([
  [{}, 'functions: Invalid input: expected object, received undefined'],
  [[], 'expected object, received array'],
  [{ functions: {} }, 'functions.cpp: Invalid input'],
  [{ functions: { cpp: {}, python: {} } }, 'functions.python: the only language of function tables is cpp'],
  [{ functions: { cpp: { sum: {} } } }, 'functions.cpp.sum.code: Invalid input: expected object, received undefined'],
  [{ functions: { cpp: { sum: { code: add.code } } } }, 'functions.cpp.sum.trigger: Invalid input'],
  [
    { functions: { cpp: { sum: { ...add, code: { module: 'libsum.so' } } } } },
    'functions.cpp.sum.code.function: Invalid input: expected string',
  ],
  [
    { functions: { cpp: { sum: { ...add, code: { module: 'libno.so', function: 'add' } } } } },
    'functions.cpp.sum.code.module: there is no file /',
  ],
  [
    { functions: { cpp: { sum: { ...add, trigger: { type: 'direct', nargs: 2 } } } } },
    'functions.cpp.sum.trigger.nargs: expected 1, received 2: a call has one input',
  ],
  [
    { functions: { cpp: { sum: { ...add, trigger: { type: 'batch', nargs: 1 } } } } },
    'functions.cpp.sum.trigger.type: expected "direct", received "batch"',
  ],
  [
    { functions: { cpp: { sum: { ...add, code: { module: 'lib\0sum.so', function: 'add' } } } } },
    'functions.cpp.sum.code.module: ',
  ],
  [
    { functions: { cpp: { sum: { ...add, code: { module: 'l'.repeat(256), function: 'add' } } } } },
    'functions.cpp.sum.code.module: ENAMETOOLONG',
  ],
  ['{ "functions": ', 'cannot read the function table'],
  ['{ "functions": { "cpp": { "__proto__": {} } } }', 'functions.cpp: no function can be called __proto__'],
])('refuses %j', (contents, message) => {
  expect(refusal(contents)).toContain(message)
})

it.each([
  ['type', 'expected "direct", received an object of Array'],
  ['nargs', 'expected 1, received an object of Array'],
])('refuses a %s of any depth', (field, message) => {
  const deep = `${'['.repeat(5_000)}${']'.repeat(5_000)}`
  const table = JSON.stringify({ functions: { cpp: { sum: { ...add, trigger: { ...direct, [field]: 'DEEP' } } } } })
  expect(refusal(table.replace('"DEEP"', deep))).toContain(message)
})

it('says of many mistakes the first ones', () => {
  const cpp = Object.fromEntries(Array.from({ length: 2_000 }, (_, index) => [`f${index}`, {}]))
  const message = refusal({ functions: { cpp } })
  expect(message.split('\n')).toHaveLength(22)
  expect(message).toContain('… and 3980 more')
})

it.each([
  ['name', { ['f'.repeat(10_000)]: {} }],
  ['name of what has no library', { ['f'.repeat(10_000)]: { ...add, code: { ...add.code, module: 'nowhere.so' } } }],
  ['module', { sum: { ...add, code: { ...add.code, module: `x/${'m'.repeat(10_000)}` } } }],
  ['trigger', { sum: { ...add, trigger: { ...direct, type: 't'.repeat(10_000) } } }],
])('quotes of a long %s its begin', (_, cpp) => {
  const message = refusal({ functions: { cpp } })
  expect(message).toContain('…')
  expect(message.length).toBeLessThan(2_000)
})

it('says when there is no table', () => {
  expect(() => readFunctionTable('/nowhere/functions.json')).toThrow('ENOENT')
})
