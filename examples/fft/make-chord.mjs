// node make-chord.mjs: writes chord.wav, four seconds of an A major chord with noise, 16-bit PCM at 8 kHz.
import { writeFileSync } from 'node:fs'

const rate = 8000
const notes = [220, 277.18, 329.63, 440] // A3, C sharp 4, E4, A4

/** A small seeded generator (mulberry32): numbers in [0, 1). */
let seed = 440
function random() {
  seed = (seed + 0x6d2b79f5) | 0
  let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}

const samples = Int16Array.from({ length: 4 * rate }, (_, n) => {
  const chord = notes.reduce((sum, hertz) => sum + 0.1 * Math.sin((2 * Math.PI * hertz * n) / rate), 0)
  return Math.round(32767 * (chord + 0.4 * (random() - 0.5)))
})

const header = Buffer.alloc(44)
header.write('RIFF', 0)
header.writeUInt32LE(36 + samples.byteLength, 4)
header.write('WAVEfmt ', 8)
header.writeUInt32LE(16, 16)
header.writeUInt16LE(1, 20) // PCM
header.writeUInt16LE(1, 22) // one channel
header.writeUInt32LE(rate, 24)
header.writeUInt32LE(2 * rate, 28)
header.writeUInt16LE(2, 32)
header.writeUInt16LE(16, 34)
header.write('data', 36)
header.writeUInt32LE(samples.byteLength, 40)
writeFileSync(new URL('./chord.wav', import.meta.url), Buffer.concat([header, Buffer.from(samples.buffer)]))
