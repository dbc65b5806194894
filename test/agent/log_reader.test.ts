import { appendFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readLog } from '../../src/agent/log_reader.js'
import { temporaryFolder } from '../support/temporary.js'

describe('readLog', () => {
  it('reads whole lines from any place on', async () => {
    const path = join(temporaryFolder(), 'log')
    expect(await readLog(path, 0, 0)).toEqual({ text: '', next: 0 })
    writeFileSync(path, 'one\ntwo\nthr')
    expect(await readLog(path, 0, 0)).toEqual({ text: 'one\ntwo\n', next: 8 })
    expect(await readLog(path, 8, 0)).toEqual({ text: '', next: 8 })
    appendFileSync(path, 'ee\n')
    expect(await readLog(path, 8, 0)).toEqual({ text: 'three\n', next: 14 })
  })

  it('counts from the end, without the line cut by that', async () => {
    const path = join(temporaryFolder(), 'log')
    writeFileSync(path, 'one\ntwo\nthree\n')
    expect(await readLog(path, -8, 0)).toEqual({ text: 'three\n', next: 14 })
    expect((await readLog(path, -1000, 0)).text).toBe('one\ntwo\nthree\n')
  })

  it('starts over when the log was begun anew', async () => {
    const path = join(temporaryFolder(), 'log')
    writeFileSync(path, 'new\n')
    expect(await readLog(path, 1000, 0)).toEqual({ text: 'new\n', next: 4 })
  })

  it('waits for more', async () => {
    const path = join(temporaryFolder(), 'log')
    writeFileSync(path, 'old\n')
    const waiting = readLog(path, 4, 30_000)
    // The watcher may not be there yet; what it misses, a later change tells.
    const writing = setInterval(() => appendFileSync(path, 'new\n'), 10)
    expect((await waiting).text).toContain('new\n')
    clearInterval(writing)
  })

  it('stops waiting when nobody wants it any longer', async () => {
    const path = join(temporaryFolder(), 'log')
    writeFileSync(path, '')
    const abort = new AbortController()
    const waiting = readLog(path, 0, 30_000, abort.signal)
    setImmediate(() => abort.abort())
    expect(await waiting).toEqual({ text: '', next: 0 })
  })
})
