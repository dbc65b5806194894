/** praas-bench-cold, which hosts processes itself and has to remove what they leave. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import { text } from 'node:stream/consumers'
import { expect, it, onTestFinished } from 'vitest'
import { benchProgram } from '../../src/bench/programs.js'
import { nativeWorkerExecutablePath } from '../../src/native/binding.js'

function start(worker: string, rounds = '1000000') {
  const args = [worker, benchProgram('praas-bench-functions.so'), rounds]
  const child = spawn(benchProgram('praas-bench-cold'), args, { stdio: ['ignore', 'pipe', 'pipe'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  return { child, stderr: text(child.stderr), ended: once(child, 'exit') }
}

const segmentsOf = (pid: number | undefined): string[] =>
  readdirSync('/dev/shm').filter((name) => name.startsWith(`praas-bench-${pid}-`))

it.each(['SIGINT', 'SIGTERM'] as const)('leaves nothing when it gets %s', async (signal) => {
  const { child, stderr, ended } = start(nativeWorkerExecutablePath())
  await expect.poll(() => segmentsOf(child.pid), { timeout: 30_000, interval: 1 }).toHaveLength(1)
  child.kill(signal)
  expect(await ended).toEqual([1, null])
  expect(await stderr).toBe('praas-bench-cold: interrupted\n')
  expect(segmentsOf(child.pid)).toEqual([])
})

it('leaves nothing when it fails', async () => {
  const { child, stderr, ended } = start('/bin/false')
  expect(await ended).toEqual([1, null])
  expect(await stderr).toMatch(/^praas-bench-cold: /m)
  expect(segmentsOf(child.pid)).toEqual([])
})

it.each(['', 'many', '20x', '99999999999'])('refuses "%s" rounds', async (rounds) => {
  const { stderr, ended } = start(nativeWorkerExecutablePath(), rounds)
  expect(await ended).toEqual([1, null])
  expect(await stderr).toBe(`praas-bench-cold: ROUNDS is "${rounds}"; expected a number\n`)
})
