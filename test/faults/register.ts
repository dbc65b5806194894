/**
 * The model of one key, which one lane of one client writes, one operation after another.
 *
 * What is known is a set of *possibilities*: a value (the ids of its records, or none) and its version, if that was told. An
 * operation that was answered takes each possibility to the next, and those that contradict its answer fall away. One whose
 * answer is unknown — an error, a timeout, the death of its client — *floats*: it may take effect once, at any time until
 * it expires (its deadline and an allowance), or never. When no possibility is left, an acknowledged change was
 * lost, a value came back, or something took effect twice or too late.
 *
 * Versions grow with every change of a process and are never used twice; the version of a change nobody told is unknown until
 * it is seen, and then has to be greater than all that were seen before.
 */
export type Write =
  | { readonly kind: 'set'; readonly records: readonly number[]; readonly ifVersion?: string }
  | { readonly kind: 'append'; readonly records: readonly number[] }
  /** Replaces records from number `at` on, which have as many bytes, or goes on behind the last. */
  | { readonly kind: 'patch'; readonly records: readonly number[]; readonly at: number }
  | { readonly kind: 'delete'; readonly ifVersion?: string }

export interface Seen {
  /** Absent: there is no such key. */
  readonly records?: readonly number[] | undefined
  /** When only the size was told. */
  readonly count?: number
  readonly version?: string | undefined
}

/** How a write was answered. `mismatch`: another version was found. */
export type WriteAnswer =
  | { readonly outcome: 'done'; readonly version?: string; readonly existed?: boolean }
  | { readonly outcome: 'mismatch' }
  | { readonly outcome: 'nothing' } // an error after which nothing has changed
  | { readonly outcome: 'unknown' }

interface Possibility {
  readonly records: readonly number[] | undefined
  readonly version: bigint | undefined
  /** Ids of floating operations that may yet happen. */
  readonly floating: readonly number[]
}

interface Floating {
  readonly write: Write
  readonly expiresMs: number
}

export class Contradiction extends Error {}

export class Register {
  #possible: Possibility[] = [{ records: undefined, version: undefined, floating: [] }]
  readonly #floats = new Map<number, Floating>()
  #newest = 0n

  /** How many operations may yet take effect. */
  get floating(): number {
    return this.#floats.size
  }

  get possibilities(): number {
    return this.#possible.length
  }

  /** Versions that the key may have now; the empty one means that it was not told. For compare-and-set. */
  get version(): string | undefined {
    const [only] = this.#possible
    return this.#possible.length === 1 && this.#floats.size === 0 ? only?.version?.toString() : undefined
  }

  /** Records of the only possibility there is. */
  get records(): readonly number[] | undefined {
    return this.#possible.length === 1 ? this.#possible[0]?.records : undefined
  }

  /** Most records that the value may have. */
  get longest(): number {
    return Math.max(...this.#reachable().map(({ records }) => records?.length ?? 0))
  }

  /** Fewest. */
  get shortest(): number {
    return Math.min(...this.#reachable().map(({ records }) => records?.length ?? 0))
  }

  /** What has been answered at `nowMs` or later began after this time. */
  expire(nowMs: number): void {
    for (const [id, { expiresMs }] of this.#floats) if (expiresMs <= nowMs) this.#settle(id)
  }

  /** Nothing is under way any more. */
  fence(): void {
    for (const id of [...this.#floats.keys()]) this.#settle(id)
  }

  write(id: number, write: Write, answer: WriteAnswer, expiresMs: number): void {
    switch (answer.outcome) {
      case 'nothing':
        return
      case 'unknown':
        this.#floats.set(id, { write, expiresMs })
        this.#possible = this.#possible.map((possibility) => ({
          ...possibility,
          floating: [...possibility.floating, id],
        }))
        return
      case 'mismatch':
        return this.#keep(
          this.#reachable().filter((possibility) => conflicts(possibility, write)),
          'another version was said to be there, and was not',
        )
      case 'done': {
        const version = answer.version === undefined ? undefined : BigInt(answer.version)
        if (version !== undefined && version <= this.#newest) {
          throw new Contradiction(`version ${version} is not newer than ${this.#newest}, which was seen before`)
        }
        const next: Possibility[] = []
        for (const possibility of this.#reachable()) {
          if (answer.existed !== undefined && answer.existed !== (possibility.records !== undefined)) continue
          const changed = apply(possibility, write)
          if (changed) next.push({ ...changed, version })
        }
        if (version !== undefined) this.#newest = version
        return this.#keep(next, 'the answer contradicts all that the value may have been')
      }
    }
  }

  read(seen: Seen): void {
    const version = seen.version === undefined ? undefined : BigInt(seen.version)
    if (version !== undefined && version < this.#newest) {
      throw new Contradiction(`version ${version} was read after ${this.#newest}`)
    }
    const matching: Possibility[] = []
    for (const possibility of this.#reachable()) {
      if (!matches(possibility, seen)) continue
      if (version === undefined) matching.push(possibility)
      else if (possibility.version === version || (possibility.version === undefined && version > this.#newest)) {
        matching.push({ ...possibility, version })
      }
    }
    this.#keep(matching, 'nothing explains what was read')
    if (version !== undefined && version > this.#newest) this.#newest = version
  }

  /** What a client found when everything stood still. */
  restore(records: readonly number[] | undefined, version: string | undefined): void {
    this.#floats.clear()
    this.#possible = [{ records, version: version === undefined ? undefined : BigInt(version), floating: [] }]
    if (version !== undefined) this.#newest = BigInt(version)
  }

  describe(): string {
    const possible = this.#possible.map(
      ({ records, version, floating }) =>
        `${records === undefined ? 'absent' : `[${records.join(' ')}]`}@${version ?? '?'}` +
        (floating.length > 0 ? ` or after any of ${floating.join(' ')}` : ''),
    )
    return `possible: ${possible.join(' | ')}; newest version seen: ${this.#newest}`
  }

  /** All that floating operations may have made of what is possible. */
  #reachable(): Possibility[] {
    const all = new Map<string, Possibility>()
    const queue = [...this.#possible]
    for (let possibility = queue.pop(); possibility; possibility = queue.pop()) {
      const key = `${possibility.records?.join(' ') ?? '-'}@${possibility.version ?? '?'}/${possibility.floating.join(' ')}`
      if (all.has(key)) continue
      all.set(key, possibility)
      for (const id of possibility.floating) {
        const changed = apply(possibility, this.#floats.get(id)!.write)
        const rest = possibility.floating.filter((other) => other !== id)
        if (changed) queue.push({ ...changed, version: undefined, floating: rest })
      }
    }
    return [...all.values()]
  }

  #settle(id: number): void {
    this.#possible = this.#reachable().map((possibility) => ({
      ...possibility,
      floating: possibility.floating.filter((other) => other !== id),
    }))
    this.#floats.delete(id)
    this.#simplify()
  }

  #keep(possible: Possibility[], otherwise: string): void {
    if (possible.length === 0) throw new Contradiction(otherwise)
    this.#possible = possible
    // What has happened in all possibilities floats no longer.
    for (const id of this.#floats.keys()) {
      if (!possible.some(({ floating }) => floating.includes(id))) this.#floats.delete(id)
    }
    this.#simplify()
  }

  #simplify(): void {
    const distinct = new Map<string, Possibility>()
    for (const possibility of this.#possible) {
      const { records, version, floating } = possibility
      distinct.set(`${records?.join(' ') ?? '-'}@${version ?? '?'}/${floating.join(' ')}`, possibility)
    }
    this.#possible = [...distinct.values()]
  }
}

/** Undefined when it would have been refused. */
function apply(possibility: Possibility, write: Write): Possibility | undefined {
  const { records } = possibility
  if ('ifVersion' in write && conflicts(possibility, write)) return undefined
  switch (write.kind) {
    case 'set':
      return { ...possibility, records: write.records }
    case 'append':
      return { ...possibility, records: [...(records ?? []), ...write.records] }
    case 'patch': {
      if (write.at > (records?.length ?? 0)) return undefined
      const changed = [...(records ?? [])]
      changed.splice(write.at, write.records.length, ...write.records)
      return { ...possibility, records: changed }
    }
    case 'delete':
      return { ...possibility, records: undefined, version: undefined }
  }
}

/** Whether the key certainly has another version than the write asks for. */
function conflicts({ records, version }: Possibility, write: Write): boolean {
  const expected = 'ifVersion' in write ? write.ifVersion : undefined
  if (expected === undefined) return false
  if (expected === '0') return records !== undefined
  // Expected was seen; a version that was not told is of a later change.
  return records === undefined || version === undefined || version !== BigInt(expected)
}

function matches({ records }: Possibility, seen: Seen): boolean {
  if (seen.count !== undefined) return records?.length === seen.count
  if (records === undefined || seen.records === undefined) return records === seen.records
  return records.length === seen.records.length && records.every((id, index) => id === seen.records?.[index])
}
