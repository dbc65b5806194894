/** What state looks like from both sides: keys and what is known of them. */
import { elementTypeName } from './codecs.js'
import type { KeyInfo } from './function/context.js'
import type { NativeKeyInfo } from './native/binding.js'

/** Keys fetched at a time by an iteration over them. */
export const pageKeys = 256

export function keyInfo(info: NativeKeyInfo): KeyInfo {
  const elementType = elementTypeName(info.elementType)
  return {
    key: info.key,
    kind: info.kind,
    ...(info.kind === 'array' && elementType ? { elementType } : {}),
    byteLength: info.bytes,
    version: info.version,
    modified: new Date(info.modifiedMs),
  }
}
