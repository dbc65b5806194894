export interface Recording {
  /** Samples per second. */
  readonly rate: number
  /** The first channel, -1 … 1. */
  readonly samples: Float64Array
}

/** Reads a WAV file of 16-bit PCM. @throws {Error} for another format */
export function parseWav(file: Buffer): Recording {
  if (file.toString('latin1', 0, 4) !== 'RIFF' || file.toString('latin1', 8, 12) !== 'WAVE') {
    throw new Error('this is no WAV file')
  }
  const format = chunk(file, 'fmt ')
  const [encoding, channels, bits] = [format.readUInt16LE(0), format.readUInt16LE(2), format.readUInt16LE(14)]
  if (encoding !== 1 || bits !== 16) throw new Error(`WAV encoding ${encoding} of ${bits} bits; 16-bit PCM is read`)
  const data = chunk(file, 'data')
  const length = Math.floor(data.byteLength / (2 * channels))
  return {
    rate: format.readUInt32LE(4),
    samples: Float64Array.from({ length }, (_, n) => data.readInt16LE(2 * channels * n) / 32768),
  }
}

function chunk(file: Buffer, name: string): Buffer {
  for (let at = 12; at + 8 <= file.byteLength;) {
    const size = file.readUInt32LE(at + 4)
    if (file.toString('latin1', at, at + 4) === name) return file.subarray(at + 8, at + 8 + size)
    // Chunks begin at even offsets.
    at += 8 + size + (size % 2)
  }
  throw new Error(`the WAV file has no ${name.trim()} chunk`)
}
