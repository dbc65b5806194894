/**
 * Any bytes as an application's module, as the manifest of a package it imports, and as what is left of a stored bundle,
 * divided by NUL bytes: `module NUL manifest NUL package's module NUL stored bundle`.
 */
import assert from 'node:assert/strict'
import { readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { dirname, isAbsolute, join } from 'node:path'
import { bundleApp, type Bundle } from '../../src/deploy/bundle.js'
import { withBundler } from '../../src/deploy/bundler.js'
import { contentHash } from '../../src/deploy/content_store.js'
import { unlessRefused, withFiles } from './support.js'

// For as long as this OS process lives: starting esbuild for each input would take nearly all the time.
void withBundler(() => new Promise(() => undefined))

export async function fuzz(data: Uint8Array): Promise<void> {
  const [module, manifest, imported, stored] = parts(data)
  const files = {
    'app.ts': module,
    'node_modules/dep/package.json': manifest,
    'node_modules/dep/index.js': imported,
  }
  await withFiles(files, async (root) => {
    const bundle = await make(root)
    if (!bundle) {
      assert.ok(!readdirSync(root).includes('out'))
      return
    }
    const whole = check(root, bundle)
    // A crash, or somebody, has left something else there; deploying again mends it.
    damage(bundle, stored)
    assert.deepEqual(await make(root), bundle)
    assert.deepEqual(check(root, bundle), whole)
  })
}

function make(root: string): Promise<Bundle | undefined> {
  return unlessRefused(['ERR_DEPLOY_FAILED'], () =>
    bundleApp({ entry: join(root, 'app.ts'), folder: join(root, 'out'), external: ['left-out'] }).catch(
      (error: Error) => {
        // What a plugin throws would come as a refusal, too.
        assert.doesNotMatch(error.message, /Cannot (read properties|convert)|is not (a function|iterable)|call stack/)
        throw error
      },
    ),
  )
}

/** @returns the stored files */
function check(root: string, { path, hash, byteLength, exports, inputs }: Bundle): Buffer[] {
  const code = readFileSync(path)
  assert.deepEqual([contentHash(code), code.byteLength], [hash, byteLength])
  assert.equal(path, join(root, 'out', hash, 'app.mjs'))
  assert.equal(new Set(exports).size, exports.length)
  assert.ok(exports.every((name) => typeof name === 'string' && name !== ''))
  assert.ok(inputs.includes(join(root, 'app.ts')))
  assert.ok(inputs.every((input) => isAbsolute(input) && statSync(input).isFile()))
  assert.deepEqual(readdirSync(join(root, 'out')), [hash])
  assert.deepEqual(readdirSync(dirname(path)), ['app.mjs', 'app.mjs.map'])
  return [code, readFileSync(`${path}.map`)]
}

function damage({ path }: Bundle, stored: Uint8Array): void {
  const victim = (stored[0] ?? 0) % 2 === 0 ? path : `${path}.map`
  if (stored.byteLength === 0) rmSync(victim)
  else writeFileSync(victim, stored.subarray(1))
}

function parts(data: Uint8Array): [Uint8Array, Uint8Array, Uint8Array, Uint8Array] {
  const taken: Uint8Array[] = []
  let rest = data
  while (taken.length < 3) {
    const end = rest.indexOf(0)
    taken.push(end < 0 ? rest : rest.subarray(0, end))
    rest = end < 0 ? rest.subarray(rest.length) : rest.subarray(end + 1)
  }
  const [module = rest, manifest = rest, imported = rest] = taken
  return [module, manifest, imported, rest]
}
