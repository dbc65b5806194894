import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { History, readHistory } from './history.js'

it('goes on behind the last whole line of a client that was killed', () => {
  const folder = mkdtempSync(join(tmpdir(), 'praas-history-'))
  try {
    const path = join(folder, 'client.jsonl')
    const lines = [
      { unlocking: 1, at: 2 },
      { unlocked: 1, at: 3 },
    ]
    writeFileSync(path, `${JSON.stringify(lines[0])}\n{"unlocked":1,"a`)
    expect(readHistory(path)).toEqual(lines.slice(0, 1))
    new History(path).write({ unlocked: 1, at: 3 })
    expect(readHistory(path)).toEqual(lines)
  } finally {
    rmSync(folder, { recursive: true })
  }
})
