#!/usr/bin/env node
// Prints the sources of a build target, one per line, relative to the repository root. binding.gyp (the build that
// ships) and CMakeLists.txt (native tests, tools) both ask this script, so that neither can forget a file.
//
//   node scripts/sources.cjs core [FOLDER...]   Node-free runtime: native/*/ but napi and function; only FOLDERs if named
//   node scripts/sources.cjs addon              the binding: native/addon.cc and native/napi/
//   node scripts/sources.cjs host               entry point of the praas-host executable
//   node scripts/sources.cjs function           what runs native functions: native/function/ without its entry point
//   node scripts/sources.cjs worker             entry point of the praas-worker executable
//   node scripts/sources.cjs floor              the praas-floor executable, in C: bench/floor/
'use strict'

const fs = require('node:fs')
const path = require('node:path')

const root = path.resolve(__dirname, '..')

/** Folders directly below native/ that belong to the core. */
function coreFolders() {
  return fs
    .readdirSync(path.join(root, 'native'), { withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name !== 'napi' && entry.name !== 'function')
    .map((entry) => entry.name)
}

/** Every .cc file below `folder`, or of another extension; a missing folder has none. */
function sourcesBelow(folder, extension = '.cc') {
  const absolute = path.join(root, folder)
  if (!fs.existsSync(absolute)) return []
  return fs.readdirSync(absolute, { withFileTypes: true }).flatMap((entry) => {
    const relative = path.posix.join(folder, entry.name)
    if (entry.isDirectory()) return sourcesBelow(relative, extension)
    return entry.name.endsWith(extension) ? [relative] : []
  })
}

const targets = {
  core: (folders) =>
    (folders.length > 0 ? folders : coreFolders())
      .flatMap((folder) => sourcesBelow(`native/${folder}`))
      .filter((file) => path.posix.basename(file) !== 'main.cc'),
  addon: () => ['native/addon.cc', ...sourcesBelow('native/napi')],
  host: () => ['native/host/main.cc'],
  function: () => sourcesBelow('native/function').filter((file) => path.posix.basename(file) !== 'main.cc'),
  worker: () => ['native/function/main.cc'],
  floor: () => sourcesBelow('bench/floor', '.c'),
}

const [target, ...folders] = process.argv.slice(2)
if (!Object.hasOwn(targets, target ?? '')) {
  console.error(`usage: sources.cjs ${Object.keys(targets).join('|')} [FOLDER...]; got "${target ?? ''}"`)
  process.exit(2)
}
const files = targets[target](folders).filter((file) => fs.existsSync(path.join(root, file)))
if (files.length > 0) console.log(files.sort().join('\n'))
