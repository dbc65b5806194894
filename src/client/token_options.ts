/** What tokens are made with. */
import { z } from 'zod'
import type { TokenRequest } from '../control.js'
import { maxTokenMs } from '../limits.js'
import { duration, parseOptions } from '../options.js'
import { tokenVerbs, type TokenVerb } from '../token.js'
import type { Duration } from '../units.js'

export interface TokenOptions {
  /** What its holder may do. Default: `['invoke']`. */
  readonly verbs?: readonly TokenVerb[]
  /** How long it is valid, at most a year; its connections end then. Default: 1 h. */
  readonly ttlMs?: Duration
}

const schema = z.object({
  verbs: z.array(z.enum(tokenVerbs)).min(1).default(['invoke']),
  ttlMs: duration(1, maxTokenMs).default(3_600_000),
})

export function parseTokenOptions(options: TokenOptions): TokenRequest {
  return parseOptions(schema, options, 'token')
}
