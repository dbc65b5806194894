/** What a campaign found: for people, and for scripts/summarize.mjs. */
import { writeFileSync } from 'node:fs'
import type { Audit, Found } from './audit.js'
import { disasters } from './plan.js'
import { Violation } from './violation.js'

/** What is checked, in the words of docs/reliability.md. */
export const checks = [
  'acknowledged state is kept',
  'state outlives the agent',
  'values are whole',
  'versions do not go back',
  'increments happen once',
  'messages are taken once, in order',
  'calls run at most once',
  'calls end with their deadline',
  'results are those of the call',
  'answers come in time',
  'nothing hangs',
  'documented errors',
  'locks exclude',
  'locks are released',
  'leases end in time',
  'nothing is left over',
  'nobody dies unasked',
  'the campaign itself works',
] as const

/** So many that the rarest of these is among them. */
const fewExecutions = 2_000
const countedAlways = [
  'lock intervals',
  'reads of keys of others',
  'values of keys of others',
  'changes of shared keys',
  'forks',
  'messages put',
  'messages taken',
  'locks are released',
]
/** By the routes of operations: workers of either language, and those of leases. */
const servedAlways = ['node', 'native', 'lease node', 'lease native']

export class Report {
  readonly violations: Found[] = []
  readonly #counts = new Map<string, number>()
  readonly #operations = new Map<string, number>()
  readonly #outcomes = new Map<string, number>()
  readonly #carried = new Map<string, number>()
  readonly #served = new Map<string, number>()
  #latestMs = 0
  epochs = 0

  add(check: string, text: string): void {
    this.violations.push({ check, text })
    console.log(`VIOLATION of "${check}": ${text}`)
  }

  /** Of what was thrown: a violation, or the campaign has failed. */
  addThrown(error: unknown): void {
    const check = error instanceof Violation ? error.check : 'the campaign itself works'
    this.add(check, error instanceof Error ? String(error.stack) : String(error))
  }

  count(what: string, more = 1): void {
    addTo(this.#counts, [[what, more]])
  }

  audited({ found, counts, operations, outcomes, carried, served, latestMs }: Audit): void {
    for (const { check, text } of found) this.add(check, text)
    addTo(this.#counts, Object.entries(counts))
    addTo(this.#operations, operations)
    addTo(this.#outcomes, outcomes)
    addTo(this.#carried, carried)
    addTo(this.#served, served)
    this.#latestMs = Math.max(this.#latestMs, latestMs)
  }

  /** How many calls were answered over a transport. */
  carried(transport: string): number {
    return this.#carried.get(transport) ?? 0
  }

  /** What a campaign of some length should have done, and never did. */
  missing(faults: ReadonlyMap<string, number>): string[] {
    if ((this.#counts.get('executions') ?? 0) < fewExecutions) return []
    const never = (counts: ReadonlyMap<string, number>, names: readonly string[]): string[] =>
      names.filter((name) => (counts.get(name) ?? 0) === 0)
    const happened = disasters.slice(0, this.epochs).filter((disaster) => disaster !== 'none')
    return [
      ...never(this.#counts, countedAlways).map((what) => `nothing was checked of: ${what}`),
      ...never(faults, happened).map((what) => `there was never: ${what}`),
      ...never(this.#served, servedAlways).map((who) => `no call was answered by: ${who}`),
    ]
  }

  print(faults: ReadonlyMap<string, number>): void {
    const total = (counts: ReadonlyMap<string, number>): number =>
      [...counts.values()].reduce((sum, count) => sum + count, 0)
    const section = (title: string, counts: ReadonlyMap<string, number>): void => {
      console.log(`\n${title}: ${total(counts)}`)
      const sorted = [...counts].sort(([a], [b]) => (a < b ? -1 : 1))
      for (const [name, count] of sorted) console.log(`  ${String(count).padStart(9)}  ${name}`)
    }
    section('operations', this.#operations)
    section('outcomes', this.#outcomes)
    section('answered calls by transport', this.#carried)
    section('answered calls by who served them', this.#served)
    section('faults', faults)
    section('checked', this.#counts)
    console.log(`\nlatest answer: ${Math.round(this.#latestMs)} ms after its deadline`)
    console.log(`${this.violations.length} violations in ${this.epochs} epochs`)
  }

  /** As vitest writes its results: one test for each thing that is checked. */
  save(path: string, name: string): void {
    const assertionResults = checks.map((check) => {
      const found = this.violations.filter((violation) => violation.check === check).map(({ text }) => text)
      return { fullName: check, status: found.length > 0 ? 'failed' : 'passed', failureMessages: found.slice(0, 3) }
    })
    const passed = assertionResults.filter(({ status }) => status === 'passed').length
    const report = {
      numPassedTests: passed,
      numPendingTests: 0,
      numTodoTests: 0,
      testResults: [{ name, status: passed === checks.length ? 'passed' : 'failed', message: '', assertionResults }],
    }
    writeFileSync(path, JSON.stringify(report))
  }
}

function addTo(sums: Map<string, number>, counts: Iterable<readonly [string, number]>): void {
  for (const [name, count] of counts) sums.set(name, (sums.get(name) ?? 0) + count)
}
