import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { expect, it } from 'vitest'
import { isAlive, startTimeOf } from '../../src/agent/os_process.js'

it('knows the running', () => {
  const startTime = startTimeOf(process.pid) ?? ''
  expect(startTime).toMatch(/^\d+$/)
  expect(isAlive({ pid: process.pid, startTime })).toBe(true)
  expect(isAlive({ pid: process.pid, startTime: `${startTime}0` })).toBe(false)
})

it('does not take the ended for running, collected or not', async () => {
  const child = spawn(process.execPath, ['--eval', 'setInterval(() => 0, 1000)'])
  const pid = child.pid ?? 0
  const startTime = startTimeOf(pid) ?? ''
  expect(isAlive({ pid, startTime })).toBe(true)
  child.kill('SIGKILL')
  await once(child, 'exit')
  expect(isAlive({ pid, startTime })).toBe(false)
  // This one nobody collects: its parent is the shell that became `sleep`.
  const shell = spawn('/bin/sh', ['-c', 'true & echo $!; exec sleep 60'])
  const [line] = (await once(shell.stdout, 'data')) as [Buffer]
  await expect.poll(() => startTimeOf(Number(line.toString()))).toBeUndefined()
  shell.kill('SIGKILL')
  await once(shell, 'exit')
})
