/** Any bytes as the token of a control request: as text, of which only what was signed is one; and as what was signed. */
import assert from 'node:assert/strict'
import { createHmac } from 'node:crypto'
import { isName } from '../../src/limits.js'
import { mintToken, openToken, type Token } from '../../src/token.js'
import { unlessRefused } from './support.js'

const key = Buffer.alloc(32, 'k').toString('base64url')
const otherKey = Buffer.alloc(32, 'l').toString('base64url')

export async function fuzz(data: Uint8Array): Promise<void> {
  const text = Buffer.from(data).toString('latin1')
  check(text, await open(text, key))
  const mac = createHmac('sha256', Buffer.from(key, 'base64url')).update(data).digest()
  const signed = Buffer.concat([data, mac]).toString('base64url')
  check(signed, await open(signed, key))
  assert.equal(await open(signed, otherKey), undefined)
}

function open(text: string, key: string): Promise<Token | undefined> {
  return unlessRefused(['ERR_TOKEN_INVALID', 'ERR_TOKEN_EXPIRED'], () =>
    // A name that is no UTF-8 reads as another one, whose key is another.
    openToken(text, (process) => (process.includes('\ufffd') ? undefined : key)),
  )
}

function check(text: string, token: Token | undefined): void {
  if (!token) return
  assert.ok(isName(token.process) && token.verbs.length > 0)
  // Later ones are no numbers of JavaScript.
  if (token.expiresMs <= Number.MAX_SAFE_INTEGER) assert.equal(mintToken(key, token), text)
}
