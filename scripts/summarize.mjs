#!/usr/bin/env node
// Adds up what the test runners reported and prints, as its last line, "N passed, N failed".
//
//   node scripts/summarize.mjs DIRECTORY
//
// Before it, each failed test with the end of its output, so that the end of a log is enough to know what failed.
// Reads *.xml (ctest --output-junit), *.json (vitest --reporter=json) and failed-stages (scripts/lib.sh). A stage that
// failed without a failing test in its report, such as a build, a linter or a crashed runner, counts as one failure.
// Exits 1 unless something passed and nothing failed.

import { readdirSync, readFileSync } from 'node:fs'
import { basename, extname, join } from 'node:path'

/** Lines of a failed test's output that are repeated in the summary: its end. */
const outputLines = 40

const entities = { lt: '<', gt: '>', quot: '"', apos: "'", amp: '&' }
const unescapeXml = (text) => text.replace(/&(lt|gt|quot|apos|amp);/g, (_, name) => entities[name])

/**
 * @typedef {{ passed: number, failed: number, skipped: number, failures: { name: string, output: string }[] }} Outcome
 * @returns {Outcome}
 */
function readJunit(text) {
  const suite = /<testsuite\b[^>]*>/.exec(text)?.[0] ?? ''
  const attribute = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)?.[1] ?? 0)
  const failed = attribute('failures')
  const skipped = attribute('skipped') + attribute('disabled')
  const failures = []
  for (const [, name, body] of text.matchAll(/<testcase name="([^"]*)"[^>]*status="fail"[^>]*>(.*?)<\/testcase>/gs)) {
    const output = /<system-out>(.*?)<\/system-out>/s.exec(body)?.[1] ?? ''
    failures.push({ name: unescapeXml(name), output: unescapeXml(output) })
  }
  return { passed: attribute('tests') - failed - skipped, failed, skipped, failures }
}

/**
 * A file that could not be loaded has no tests in the report, but has failed.
 * @returns {Outcome}
 */
function readVitest(text) {
  const report = JSON.parse(text)
  const failures = []
  for (const file of report.testResults) {
    if (file.status === 'failed' && file.assertionResults.length === 0) {
      failures.push({ name: file.name, output: file.message })
    }
    for (const test of file.assertionResults) {
      if (test.status === 'failed') failures.push({ name: test.fullName, output: test.failureMessages.join('\n') })
    }
  }
  return {
    passed: report.numPassedTests,
    failed: failures.length,
    skipped: report.numPendingTests + report.numTodoTests,
    failures,
  }
}

const readers = { '.xml': readJunit, '.json': readVitest }

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
  const { failures, ...counts } = read(readFileSync(join(directory, file), 'utf8'))
  const name = basename(file, extname(file))
  for (const failure of failures) {
    console.log(`${name} FAILED: ${failure.name}`)
    console.log(failure.output.trimEnd().split('\n').slice(-outputLines).join('\n'))
  }
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
