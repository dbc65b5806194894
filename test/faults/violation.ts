/** Something that must never happen. */
export class Violation extends Error {
  readonly check: string
  constructor(check: string, text: string, options?: ErrorOptions) {
    super(text, options)
    this.check = check
  }
}

/** What is awaited here and not there in time hangs; it may go on. */
export async function within<Value>(what: string, limitMs: number, awaited: Promise<Value>): Promise<Value> {
  let timer: NodeJS.Timeout | undefined
  const hangs = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Violation('nothing hangs', `${what}: not within ${limitMs} ms`)), limitMs)
  })
  try {
    return await Promise.race([awaited, hangs])
  } finally {
    clearTimeout(timer)
    awaited.catch(() => undefined)
  }
}
