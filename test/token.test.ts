import { describe, expect, it } from 'vitest'
import { codeOf } from '../src/errors.js'
import { mintToken, openToken, tokenVerbs, type Token } from '../src/token.js'

const key = Buffer.alloc(32, 'k').toString('base64url')
const inAnHour = Date.now() + 3_600_000
const token: Token = { process: 'grid', verbs: ['invoke', 'state-read'], expiresMs: inAnHour, endsConnections: true }
const keyOf = (process: string): string | undefined => (process === 'grid' ? key : undefined)

function refusal(text: string): string | undefined {
  try {
    openToken(text, keyOf)
  } catch (error) {
    expect((error as Error).message).not.toContain(text === '' ? key : text)
    return codeOf(error)
  }
  return undefined
}

describe('a token', () => {
  // test/native/protocol/token_test.cc has the same.
  it('is the same in C++', () => {
    expect(mintToken(key, { ...token, expiresMs: 1_764_416_263_123 })).toBe(
      'AQMBANOTZ8-aAQAAZ3JpZFn31kB9Pkogvbh9qk-oAaG2-uS7XbKLZw4UmHNm2qes',
    )
  })

  it('says what it was made with', () => {
    expect(openToken(mintToken(key, token), keyOf)).toEqual(token)
    const all = { ...token, verbs: tokenVerbs, endsConnections: false }
    expect(openToken(mintToken(key, all), keyOf)).toEqual(all)
    const long = { ...token, process: 'ä'.repeat(127) }
    expect(openToken(mintToken(key, long), () => key)).toEqual(long)
  })

  it('is not valid with any bit changed, cut, or written otherwise', () => {
    const good = Buffer.from(mintToken(key, token), 'base64url')
    for (let bit = 0; bit < 8 * good.length; bit++) {
      const bad = Buffer.from(good)
      bad[bit >> 3] = (bad[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(refusal(bad.toString('base64url'))).toBe('ERR_TOKEN_INVALID')
    }
    for (let size = 0; size < good.length; size++) {
      expect(refusal(good.toString('base64url', 0, size))).toBe('ERR_TOKEN_INVALID')
    }
    const text = good.toString('base64url')
    for (const wrong of [`${text}=`, ` ${text}`, `${text}\n`, good.toString('hex'), 'x']) {
      expect(refusal(wrong)).toBe('ERR_TOKEN_INVALID')
    }
  })

  it('of another key or process is not valid', () => {
    expect(refusal(mintToken(Buffer.alloc(32, 'l').toString('base64url'), token))).toBe('ERR_TOKEN_INVALID')
    expect(refusal(mintToken(key, { ...token, process: 'other' }))).toBe('ERR_TOKEN_INVALID')
  })

  it('allows something', () => {
    expect(refusal(mintToken(key, { ...token, verbs: [] }))).toBe('ERR_TOKEN_INVALID')
  })

  it('expires', () => {
    expect(refusal(mintToken(key, { ...token, expiresMs: Date.now() }))).toBe('ERR_TOKEN_EXPIRED')
    expect(refusal(mintToken(key, { ...token, expiresMs: 0 }))).toBe('ERR_TOKEN_EXPIRED')
  })
})
