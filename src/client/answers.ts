/** What hosts answer in words. */
import { ConnectionError } from '../errors.js'

const shownCharacters = 80

/** @throws {ConnectionError} `ERR_PROTOCOL_INVALID` when it is no JSON */
export function fromJson(text: string): unknown {
  try {
    return JSON.parse(text) as unknown
  } catch (cause) {
    const shown = JSON.stringify(text.slice(0, shownCharacters))
    throw new ConnectionError('ERR_PROTOCOL_INVALID', `the process host answered with what is no JSON: ${shown}`, {
      cause,
    })
  }
}
