import { join } from 'node:path'
import * as shared from 'esbuild'
import { expect, it } from 'vitest'
import { descendantsOf } from '../../src/bench/os_usage.js'
import { bundleApp } from '../../src/deploy/bundle.js'
import { withBundler } from '../../src/deploy/bundler.js'
import { writeFiles } from '../support/files.js'
import { temporaryFolder } from '../support/temporary.js'

const children = (): number => descendantsOf(process.pid).length - 1

it('leaves no OS process behind, whoever is the last to bundle, and does not end that of the program', async () => {
  const program = await shared.context({ stdin: { contents: 'let a' }, write: false, logLevel: 'silent' })
  const before = children()
  const folder = temporaryFolder()
  writeFiles(folder, { 'a.ts': 'export const a = () => 1', 'b.ts': `import './nowhere.js'` })
  const bundle = (name: string): Promise<unknown> =>
    bundleApp({ entry: join(folder, name), folder: join(folder, 'out') })
  let letGo: () => void = () => undefined
  const held = withBundler(() => new Promise<void>((resolve) => (letGo = resolve)))
  expect((await Promise.allSettled([bundle('a.ts'), bundle('b.ts')])).map(({ status }) => status)).toEqual([
    'fulfilled',
    'rejected',
  ])
  expect(children()).toBe(before + 1)
  letGo()
  await held
  await expect.poll(children).toBe(before)
  expect((await program.rebuild()).outputFiles).toHaveLength(1)
  await bundle('a.ts')
  await expect.poll(children).toBe(before)
  await program.dispose()
  await shared.stop()
})
