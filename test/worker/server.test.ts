import { expect, it } from 'vitest'
import type { LoadedApp } from '../../src/app.js'
import { codecByName, packTraits } from '../../src/codecs.js'
import type { NativeWorker } from '../../src/native/binding.js'
import { collectFunctions } from '../../src/worker/functions.js'
import { WorkerServer } from '../../src/worker/server.js'

it('functions are found by the number they have in the process, with the codecs of their language', () => {
  // Native workers are the first to be ready, so theirs come first.
  const registered = new Map([['fft', 0]])
  const worker = { findFunction: (name: string) => registered.get(name) } as unknown as NativeWorker
  const [input, output] = [codecByName('json'), codecByName('Float64Array')]
  const flags = packTraits({ stream: false, idempotent: true, input, output })
  const app = { native: [{ name: 'fft', flags }], control: '', checkViews: false } as unknown as LoadedApp
  const server = new WorkerServer(worker, app, collectFunctions({ add: () => undefined }))

  expect(server.find('fft')).toEqual({ index: 0, traits: { stream: false, idempotent: true, input, output } })
  expect(server.find('add')).toBeUndefined()
  registered.set('add', 1)
  expect(server.find('add')).toMatchObject({ index: 1, traits: { input: codecByName('raw') } })
  expect(server.find('nowhere')).toBeUndefined()
})
