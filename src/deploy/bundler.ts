/**
 * esbuild while it is needed. It keeps an OS process that sends whoever loaded it a message every second, for good; a
 * cluster that waits has better things to do: nothing.
 */
import { createRequire } from 'node:module'

type Bundler = typeof import('esbuild')

const require = createRequire(import.meta.url)
let bundler: Bundler | undefined
let users = 0

/** Lends esbuild; when nobody has it any longer, its OS process ends. */
export async function withBundler<Result>(use: (bundler: Bundler) => Promise<Result>): Promise<Result> {
  bundler ??= loadApart()
  users++
  try {
    return await use(bundler)
  } finally {
    if (--users === 0) await bundler.stop()
  }
}

/** A copy of our own: the program may use esbuild, too, and `stop` ends what any user of a copy is doing. */
function loadApart(): Bundler {
  const path = require.resolve('esbuild')
  const shared = require.cache[path]
  delete require.cache[path]
  try {
    return require(path) as Bundler
  } finally {
    if (shared) require.cache[path] = shared
    else delete require.cache[path]
  }
}
