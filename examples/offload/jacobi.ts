/**
 * Poisson's equation solved by leased workers and this thread.
 *
 * Each has a block of rows: this thread the first ones, in memory of its own; the workers the rest, in the state of their
 * process. Where two workers meet, both read the state. Between this thread and the worker below it, one row goes each way
 * with every sweep: with the call, and with its result.
 */
import { WorkerError, type Lease, type LeaseReport } from 'praas'
import { functionName, killOne, languageOf, lease, type Leasing } from './leasing.js'
import { errorAfter, fillSource, sweepHeader, sweepRows } from './poisson.js'
import { between, printOverhead, printSplit, printTimes, Stopwatch, type WorkerShare } from './split.js'

type App = typeof import('./app.js')

export interface GridSize {
  /** Points in each direction. */
  readonly points: number
  readonly sweeps: number
}

/** Sweeps between two looks at how fast everybody is. */
const sweepsPerBalance = 20

export async function solvePoisson(leasing: Leasing, { points, sweeps }: GridSize): Promise<void> {
  console.log(`\nJacobi: ${points} × ${points} points, ${sweeps} sweeps`)
  const width = points + 2
  const { prepare } = leasing.target.functions<App>()

  // Until the compiler of JavaScript is done with it.
  solveHere(102, 200)
  const serial = solveHere(width, sweeps)

  await prepare(width)
  const alone = await solveByOne(leasing, width, sweeps)
  verify('one worker', alone.grid, serial.grid)

  await prepare(width)
  await using workers = await lease(leasing, leasing.workers)
  const solver = new Solver(leasing, workers, width, {
    here: (points * sweeps) / serial.ms,
    worker: (points * sweeps) / alone.ms,
  })
  const before = await workers.accounting()
  const grid = await solver.solve(sweeps)
  const shares = between(before, await workers.accounting())

  verify('all together', grid, serial.grid)
  const error = errorAfter(sweeps, grid, width)
  if (!(error <= 1e-9)) throw new Error(`the grid is off by ${error} of its largest number`)
  console.log(`verified: the same as the serial grid in every bit, and right within ${error.toExponential(1)}`)
  printTimes([
    ['here alone, in TypeScript', serial.ms],
    [`one leased worker alone, in ${languageOf(leasing)}`, alone.ms],
    [`here and leased workers, ${leasing.workers}`, solver.watch.totalMs],
  ])
  printOverhead(alone.callsMs, alone.shares)
  printSplit(solver.watch, shares, solver.swept)
}

function solveHere(width: number, sweeps: number): { grid: Float64Array; ms: number } {
  const problem = problemOf(width)
  const watch = new Stopwatch<'computing'>()
  watch.to('computing')
  for (let sweep = 0; sweep < sweeps; sweep++) {
    const [current, next] = rolesIn(problem, sweep)
    sweepRows(next, current, problem.source, width, 1, width - 1)
  }
  watch.to()
  return { grid: rolesIn(problem, sweeps)[0], ms: watch.totalMs }
}

/** All rows by one leased worker. */
async function solveByOne(
  leasing: Leasing,
  width: number,
  sweeps: number,
): Promise<{ grid: Float64Array; ms: number; callsMs: number; shares: WorkerShare[] }> {
  await using worker = await lease(leasing, 1)
  const name = functionName('sweep', leasing)
  const grid = new Float64Array(width * width)
  const before = await worker.accounting()
  const watch = new Stopwatch<'calling' | 'fetching'>()
  watch.to('calling')
  for (let sweep = 0; sweep < sweeps; sweep++) {
    await worker.invoke(name, Float64Array.of(width, sweep % 2, 1, width - 1, 0))
  }
  watch.to()
  const shares = between(before, await worker.accounting())
  watch.to('fetching')
  await getRows(leasing, grid, width, sweeps % 2, 1, width - 1)
  watch.to()
  return { grid, ms: watch.totalMs, callsMs: watch.ms('calling'), shares }
}

type Activity = 'computing' | 'waiting' | 'starting calls' | 'balancing' | 'fetching the result'

/** Rows [from, to) of one worker. */
interface Block {
  readonly worker: number
  readonly pid: number
  readonly from: number
  readonly to: number
}

/** What has been done until some moment. */
interface Progress {
  readonly report: LeaseReport
  /** Rows times sweeps. */
  readonly here: number
  readonly workers: readonly number[]
  readonly hereMs: number
}

class Solver {
  readonly watch = new Stopwatch<Activity>()
  /** Rows times sweeps, by whom. */
  readonly swept: { here: number; readonly workers: number[]; total: number }
  readonly #leasing: Leasing
  readonly #lease: Lease
  readonly #sweepName: string
  readonly #width: number
  readonly #problem: Problem
  /** Rows per millisecond. */
  readonly #speed: { here: number; readonly workers: number[] }
  /** Rows 1 … here are this thread's. */
  #here = 0
  #blocks: Block[] = []
  #measured: Progress | undefined

  constructor(leasing: Leasing, lease: Lease, width: number, speed: { here: number; worker: number }) {
    this.#leasing = leasing
    this.#lease = lease
    this.#sweepName = functionName('sweep', leasing)
    this.#width = width
    this.#problem = problemOf(width)
    this.#speed = { here: speed.here, workers: lease.workers.map(() => speed.worker) }
    this.swept = { here: 0, workers: lease.workers.map(() => 0), total: 0 }
  }

  async solve(sweeps: number): Promise<Float64Array> {
    const { watch } = this
    for (let sweep = 0; sweep < sweeps; sweep++) {
      watch.to('balancing')
      const changed = this.#tellWhoChanged(sweep)
      if (sweep % sweepsPerBalance === 0) await this.#measure()
      if (changed || sweep % sweepsPerBalance === 0) await this.#share(sweep)
      await this.#sweep(sweep, this.#leasing.kill && sweep === Math.floor(sweeps / 2))
    }
    watch.to('fetching the result')
    const [grid] = rolesIn(this.#problem, sweeps)
    await getRows(this.#leasing, grid, this.#width, sweeps % 2, this.#here + 1, this.#width - 1)
    watch.to()
    return grid
  }

  async #sweep(sweep: number, kill: boolean): Promise<void> {
    const { watch } = this
    const [current, next] = rolesIn(this.#problem, sweep)
    watch.to('starting calls')
    const calls = this.#blocks.map((block, index) => this.#call(sweep, block, index === 0 ? current : undefined))
    if (kill) killOne(this.#lease)
    watch.to('computing')
    sweepRows(next, current, this.#problem.source, this.#width, 1, this.#here + 1)
    watch.to('waiting')
    const [row] = await Promise.all(calls)
    if (row) next.set(row, (this.#here + 1) * this.#width)
    this.swept.here += this.#here
    this.swept.total += this.#width - 2
  }

  /** A sweep over a block; the row above it goes with the call when it comes from this thread. */
  async #call(sweep: number, { worker, from, to }: Block, current: Float64Array | undefined): Promise<Float64Array> {
    const width = this.#width
    const input = new Float64Array(sweepHeader + (current ? width : 0))
    input.set([width, sweep % 2, from, to, current ? 1 : 0])
    if (current) input.set(current.subarray((from - 1) * width, from * width), sweepHeader)
    try {
      // Not to be repeated as it is: that would wait until there is another worker in this one's place.
      const options = { worker, idempotent: false }
      const row = await this.#lease.invoke<Float64Array>(this.#sweepName, input, options)
      this.swept.workers[worker]! += to - from
      return row
    } catch (error) {
      if (!(error instanceof WorkerError)) throw error
      // The rows are in the state, where any other worker finds them.
      return this.#lease.invoke<Float64Array>(this.#sweepName, input)
    }
  }

  /** How fast everybody was since the last look. */
  async #measure(): Promise<void> {
    const now: Progress = {
      report: await this.#lease.accounting(),
      here: this.swept.here,
      workers: [...this.swept.workers],
      hereMs: this.watch.ms('computing'),
    }
    const last = this.#measured
    this.#measured = now
    if (!last) return
    // Half of what was measured before stays, so that one interruption does not move many rows.
    const mean = (old: number, rows: number, ms: number): number => (rows > 0 && ms > 0 ? (old + rows / ms) / 2 : old)
    this.#speed.here = mean(this.#speed.here, now.here - last.here, now.hereMs - last.hereMs)
    for (const { worker, executionMs } of between(last.report, now.report)) {
      const rows = now.workers[worker]! - last.workers[worker]!
      this.#speed.workers[worker] = mean(this.#speed.workers[worker]!, rows, executionMs)
    }
  }

  /** Gives everybody rows in proportion to their speed, before `sweep`. */
  async #share(sweep: number): Promise<void> {
    const present = this.#present()
    const speeds = [this.#speed.here, ...present.map(({ worker }) => this.#speed.workers[worker]!)]
    const [here = 0, ...parts] = partsOf(this.#width - 2, speeds)
    await this.#moveBorder(sweep, here)
    let from = here + 1
    this.#blocks = present.map(({ worker, pid }, index) => {
      const block = { worker, pid, from, to: from + parts[index]! }
      from = block.to
      return block
    })
  }

  /** Rows that were the worker's and are to be this thread's are fetched, and the reverse. */
  async #moveBorder(sweep: number, here: number): Promise<void> {
    const [current] = rolesIn(this.#problem, sweep)
    // Before the first sweep all are zero on both sides.
    if (sweep > 0 && here > this.#here) {
      await getRows(this.#leasing, current, this.#width, sweep % 2, this.#here + 1, here + 2)
    } else if (sweep > 0 && here < this.#here) {
      await putRows(this.#leasing, current, this.#width, sweep % 2, here + 1, this.#here + 1)
    }
    this.#here = here
  }

  /** Workers that take calls. One that has just come has no pid until the lease has heard of it. */
  #present(): { worker: number; pid: number }[] {
    return this.#lease.workers.filter(({ alive, pid }) => alive && pid !== 0)
  }

  /** @returns whether workers have died, or come back, since rows were shared */
  #tellWhoChanged(sweep: number): boolean {
    const present = this.#present()
    const gone = this.#blocks.filter(({ pid }) => !present.some((other) => other.pid === pid))
    const come = present.filter(({ pid }) => !this.#blocks.some((other) => other.pid === pid))
    if (sweep === 0) return true
    for (const { worker, pid, from, to } of gone) {
      console.log(`sweep ${sweep}: worker ${worker} (pid ${pid}) has died; its ${to - from} rows go to the others`)
    }
    for (const { worker, pid } of come) console.log(`sweep ${sweep}: worker ${worker} is back (pid ${pid})`)
    return gone.length > 0 || come.length > 0
  }
}

/** Two grids of zeros and the source, in memory of this thread. */
interface Problem {
  readonly grids: readonly [Float64Array, Float64Array]
  readonly source: Float64Array
}

function problemOf(width: number): Problem {
  const array = (): Float64Array => new Float64Array(width * width)
  const problem = { grids: [array(), array()] as const, source: array() }
  fillSource(problem.source, width)
  return problem
}

/** The grid that a sweep reads, and the one it writes. */
function rolesIn({ grids: [even, odd] }: Problem, sweep: number): readonly [current: Float64Array, next: Float64Array] {
  return sweep % 2 === 0 ? [even, odd] : [odd, even]
}

/** Copies rows [from, to) of a grid in the state into one of this thread. */
async function getRows(
  { target }: Leasing,
  grid: Float64Array,
  width: number,
  which: number,
  from: number,
  to: number,
): Promise<void> {
  const { getRows } = target.functions<App>()
  const step = rowsPerCall(width)
  for (let row = from; row < to; row += step) {
    grid.set(await getRows(Float64Array.of(width, which, row, Math.min(row + step, to))), row * width)
  }
}

/** The reverse. */
async function putRows(
  { target }: Leasing,
  grid: Float64Array,
  width: number,
  which: number,
  from: number,
  to: number,
): Promise<void> {
  const { putRows } = target.functions<App>()
  const step = rowsPerCall(width)
  for (let row = from; row < to; row += step) {
    const rows = grid.subarray(row * width, Math.min(row + step, to) * width)
    const input = new Float64Array(3 + rows.length)
    input.set([width, which, row])
    input.set(rows, 3)
    await putRows(input)
  }
}

/** As many as fit into 8 MiB, at least one. */
function rowsPerCall(width: number): number {
  return Math.max(1, Math.floor(2 ** 20 / width))
}

/** `count` in parts in proportion to `speeds`, none of them empty. */
function partsOf(count: number, speeds: readonly number[]): number[] {
  const total = speeds.reduce((sum, speed) => sum + speed, 0)
  const spare = count - speeds.length
  let speed = 0
  let given = 0
  return speeds.map((each) => {
    speed += each
    const until = Math.round((spare * speed) / total)
    const part = 1 + until - given
    given = until
    return part
  })
}

function verify(who: string, grid: Float64Array, expected: Float64Array): void {
  const row = grid.findIndex((value, index) => value !== expected[index])
  if (row !== -1) throw new Error(`${who}: number ${row} is ${grid[row]}, serially ${expected[row]}`)
}
