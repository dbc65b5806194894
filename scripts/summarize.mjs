#!/usr/bin/env node
// Adds up what the test runners reported and prints, as its last line, "N passed, N failed".
//
//   node scripts/summarize.mjs DIRECTORY
//
// Reads *.xml (ctest --output-junit), *.json (vitest --reporter=json) and failed-stages (scripts/lib.sh). A stage that
// failed without a failing test in its report, such as a build, a linter or a crashed runner, counts as one failure.
// Exits 1 unless something passed and nothing failed.

import { readdirSync, readFileSync } from 'node:fs'
import { basename, extname, join } from 'node:path'

/** @returns {{ passed: number, failed: number, skipped: number }} */
function countJunit(text) {
  const suite = /<testsuite\b[^>]*>/.exec(text)?.[0] ?? ''
  const attribute = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)?.[1] ?? 0)
  const failed = attribute('failures')
  const skipped = attribute('skipped') + attribute('disabled')
  return { passed: attribute('tests') - failed - skipped, failed, skipped }
}

/** A file that could not be loaded has no tests in the report, but has failed. */
function countVitest(text) {
  const report = JSON.parse(text)
  const brokenFiles = report.testResults.filter(
    (file) => file.status === 'failed' && file.assertionResults.length === 0,
  )
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + brokenFiles.length,
    skipped: report.numPendingTests + report.numTodoTests,
  }
}

const readers = { '.xml': countJunit, '.json': countVitest }

const [directory] = process.argv.slice(2)
if (directory === undefined) {
  console.error('usage: summarize.mjs DIRECTORY')
  process.exit(2)
}

const total = { passed: 0, failed: 0, skipped: 0 }
const failingReports = new Set()
for (const file of readdirSync(directory).sort()) {
  const read = readers[extname(file)]
  if (read === undefined) continue
  const counts = read(readFileSync(join(directory, file), 'utf8'))
  const name = basename(file, extname(file))
  console.log(`${name}: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
  if (counts.passed + counts.failed + counts.skipped === 0) console.log(`${name}: NO TESTS WERE RUN`)
  if (counts.failed > 0) failingReports.add(name)
  for (const key of Object.keys(total)) total[key] += counts[key]
}

let stages = ''
try {
  stages = readFileSync(join(directory, 'failed-stages'), 'utf8')
} catch (error) {
  if (error.code !== 'ENOENT') throw error
}
for (const stage of stages.split('\n').filter(Boolean)) {
  console.log(`stage ${stage} failed`)
  if (!failingReports.has(stage)) total.failed += 1
}

console.log(`${total.passed} passed, ${total.failed} failed`)
process.exit(total.passed > 0 && total.failed === 0 ? 0 : 1)
