import { expect, it, onTestFinished } from 'vitest'
import { abortable } from '../../src/client/abortable.js'
import { failureOf } from '../support/cluster.js'

it.each(['before', 'after'])('hears of what fails when nobody waits any longer, aborted %s that', async (when) => {
  const unheard: unknown[] = []
  const hear = (error: unknown): void => void unheard.push(error)
  process.on('unhandledRejection', hear)
  onTestFinished(() => void process.off('unhandledRejection', hear))
  const reason = new Error('enough')
  const abort = new AbortController()
  if (when === 'before') abort.abort(reason)
  let fail: (error: Error) => void = () => undefined
  const operation = new Promise<never>((_, reject) => (fail = reject))
  const waiting = failureOf(abortable(operation, abort.signal))
  abort.abort(reason)
  expect(await waiting).toBe(reason)
  fail(new Error('failed'))
  await new Promise(setImmediate)
  expect(unheard).toEqual([])
})
