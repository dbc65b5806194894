import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { versions as ownVersions, type Versions } from '../../src/bench/machine.js'
import { findProgram } from './service.js'

/** Versions of Node, praas, the peers' packages and the programs of the system that are there. */
export function versions(): Versions & Readonly<Record<string, string>> {
  const found: Record<string, string> = {}
  const manifest = readJson(new URL('../../../bench/peers/package.json', import.meta.url))
  for (const name of Object.keys(manifest.dependencies ?? {})) {
    try {
      found[name] = readJson(new URL(`./node_modules/${name}/package.json`, import.meta.url)).version
    } catch {
      // Not installed; its peer is left out.
    }
  }
  for (const program of ['redis-server', 'nats-server', 'mpirun']) {
    const path = findProgram(program)
    if (path === undefined) continue
    const text = execFileSync(path, ['--version'], { encoding: 'utf8' })
    found[program] = /\d+\.\d+(\.\d+)?/.exec(text)?.[0] ?? text.trim()
  }
  return { ...ownVersions(), ...found }
}

function readJson(url: URL): { readonly version: string; readonly dependencies?: Readonly<Record<string, string>> } {
  return JSON.parse(readFileSync(url, 'utf8')) as ReturnType<typeof readJson>
}
