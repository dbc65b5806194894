import { inspect } from 'node:util'
import { describe, expect, it } from 'vitest'
import type { WorkerError } from '../src/errors.js'
import {
  ArgumentError,
  codeOf,
  errorCodes,
  errorFromCode,
  FunctionError,
  PraasError,
  StateError,
  SystemError,
} from '../src/errors.js'
import { readFileSync } from 'node:fs'
import { fromNative, translated } from '../src/native/errors.js'

function nativeError(code: string, message: string, extra: object = {}): Error {
  return Object.assign(new Error(message), { code, ...extra })
}

describe('error classes', () => {
  it('gives every code the class of its family, and name and stack of that class', () => {
    for (const [code, family] of errorCodes) {
      const error = errorFromCode(code, 'why')
      expect(error).toBeInstanceOf(PraasError)
      expect(error.code).toBe(code)
      if (family !== 'general') expect(error.name.toLowerCase()).toBe(`${family}error`)
      expect(error.stack).toMatch(new RegExp(`^${error.name}: why`))
    }
  })

  it('documents every code, and no other', () => {
    const documented = readFileSync(new URL('../docs/errors.md', import.meta.url), 'utf8')
    const inTables = new Set(Array.from(documented.matchAll(/^\| `(ERR_\w+)`/gm), ([, code]) => code))
    expect([...inTables].sort()).toEqual([...errorCodes.keys()].sort())
  })

  it('keeps the name the system gives to its own failures', () => {
    const error = fromNative(nativeError('ENOSPC', 'posix_fallocate: no space', { errno: -28, syscall: 'fallocate' }))
    expect(error).toBeInstanceOf(SystemError)
    expect(error).toMatchObject({ code: 'ENOSPC', errno: -28, syscall: 'fallocate' })
  })

  it('passes on what did not come from native code', () => {
    const own = new TypeError('mine')
    expect(fromNative(own)).toBe(own)
    expect(fromNative('text')).toBe('text')
    const abort = AbortSignal.abort().reason as unknown
    expect(fromNative(abort)).toBe(abort)
    const ours = new StateError('ERR_STATE_VERSION', 'changed')
    expect(fromNative(ours)).toBe(ours)
  })

  it('translates what a synchronous native call throws', () => {
    const failing = (): never => {
      throw nativeError('ERR_STATE_NOT_FOUND', 'no key')
    }
    expect(() => translated(failing)).toThrow(StateError)
  })

  it('reads the code of anything', () => {
    expect(codeOf(nativeError('ERR_X', ''))).toBe('ERR_X')
    expect(codeOf(undefined)).toBeUndefined()
    expect(codeOf({ code: 5 })).toBeUndefined()
  })
})

describe('errors of functions', () => {
  const remote = {
    name: 'RangeError',
    message: 'no such row',
    stack: 'RangeError: no such row\n    at step (/a/app.ts:7:3)',
    code: 'E_ROW',
  }

  it('shows the stack of the application and keeps its error as cause', () => {
    const error = fromNative(nativeError('ERR_FUNCTION_THREW', JSON.stringify(remote)), { function: 'step' })
    expect(error).toBeInstanceOf(FunctionError)
    const thrown = error as FunctionError
    expect(thrown.message).toBe('function step threw RangeError: no such row')
    expect(thrown.remote).toEqual(remote)
    expect(thrown.cause).toMatchObject({
      name: 'RangeError',
      message: 'no such row',
      stack: remote.stack,
      code: 'E_ROW',
    })
    expect(inspect(thrown)).toContain('/a/app.ts:7:3')
  })

  it.each(['not JSON', '[]', '{}', '"x"', 'null', '{"name":7,"message":null}'])('survives the detail %s', (detail) => {
    const error = fromNative(nativeError('ERR_FUNCTION_THREW', detail)) as FunctionError
    expect(error.code).toBe('ERR_FUNCTION_THREW')
    expect(error.cause).toBeInstanceOf(Error)
  })

  it('says how a worker ended', () => {
    const detail = JSON.stringify({ signal: 'SIGSEGV', exitCode: null, stderr: 'bad pointer\n' })
    const error = fromNative(nativeError('ERR_WORKER_CRASHED', detail), { function: 'step' }) as WorkerError
    expect(error).toMatchObject({ signal: 'SIGSEGV', stderr: 'bad pointer\n' })
    expect(error.exitCode).toBeUndefined()
    expect(error.message).toContain('was killed by SIGSEGV while it ran step')
    expect(error.message).toContain('bad pointer')
    const exited = fromNative(nativeError('ERR_WORKER_CRASHED', '{"exitCode":3}')) as WorkerError
    expect(exited).toMatchObject({ exitCode: 3, message: 'the worker exited with code 3' })
    expect((fromNative(nativeError('ERR_WORKER_CRASHED', 'gone')) as WorkerError).message).toBe('gone')
  })
})

it('tells argument errors by class and code', () => {
  expect(new ArgumentError('x')).toMatchObject({ code: 'ERR_ARGUMENT_INVALID', name: 'ArgumentError' })
  expect(String(new ArgumentError('x'))).toBe('ArgumentError [ERR_ARGUMENT_INVALID]: x')
})
