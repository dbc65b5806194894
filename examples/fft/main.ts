// npx tsx examples/fft/main.ts [FILE.wav] [WORKERS]
import { spawnSync } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { basename } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { Cluster } from 'praas'
import { parseWav } from './wav.js'

const here = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const chord = here('./chord.wav')
const [file = chord, workerCount = '2'] = process.argv.slice(2)
const workers = Number(workerCount)
const frameLength = 4096

const { rate, samples } = parseWav(await readFile(file))
if (samples.length < frameLength) throw new Error(`${file} has fewer than ${frameLength} samples`)
const library = buildLibrary()

/** The function of spectrum.c, as `process.functions` makes it a method. */
interface NativeFunctions {
  spectrum(samples: Float64Array): Float64Array
}

await using cluster = await Cluster.local()
await cluster.deploy({ native: library, name: 'fft', functions: { spectrum: { codec: 'Float64Array' } } })
const analyser = await cluster.process('analyser', { app: 'fft', workers })
const { spectrum } = analyser.functions<NativeFunctions>()

// Frames of the recording, half of each in the next one. The mean of their spectra has the notes and less of the noise.
const hop = frameLength / 2
const frames = Array.from({ length: Math.floor((samples.length - frameLength) / hop) + 1 }, (_, frame) =>
  samples.subarray(frame * hop, frame * hop + frameLength),
)
const power = new Float64Array(frameLength / 2 + 1)
for await (const amplitudes of analyser.invokeMany<Float64Array>('spectrum', frames)) {
  amplitudes.forEach((amplitude, bin) => (power[bin]! += amplitude ** 2 / frames.length))
}

const peaks = findPeaks(power)
console.log(`${basename(file)}: ${frames.length} frames of ${frameLength} samples at ${rate} Hz, ${workers} workers`)
console.table(
  peaks.map(({ hertz, amplitude }) => ({
    note: noteOf(hertz),
    hertz: Number(hertz.toFixed(2)),
    amplitude: Number(amplitude.toFixed(4)),
  })),
)

await checkAgainstDefinition(frames[0]!)
if (file === chord) checkChord()
await measurePlanning()

/** Compiles spectrum.c into build/. */
function buildLibrary(): string {
  const include = fileURLToPath(new URL('include', import.meta.resolve('praas/package.json')))
  const target = here('./build/libspectrum.so')
  mkdirSync(here('./build'), { recursive: true })
  const options = ['-O2', '-shared', '-fPIC', '-I', include]
  const { error, status, stderr } = spawnSync(
    'cc',
    [...options, '-o', target, here('./spectrum.c'), '-lfftw3', '-lm'],
    {
      encoding: 'utf8',
    },
  )
  if (error) throw error
  if (status === 0) return target
  const missing = /fftw3\.h: No such file|cannot find -lfftw3/.test(stderr)
  console.error(missing ? 'This example needs FFTW: apt-get install libfftw3-dev' : stderr)
  process.exit(1)
}

interface Peak {
  hertz: number
  amplitude: number
}

/** Local maxima at least a quarter as high as the highest, from low to high frequencies. */
function findPeaks(power: Float64Array): Peak[] {
  const threshold = power.reduce((most, value) => Math.max(most, value), 0) / 16
  const peaks: Peak[] = []
  for (let bin = 1; bin < power.length - 1; bin++) {
    const [left, middle, right] = [power[bin - 1]!, power[bin]!, power[bin + 1]!]
    if (middle < threshold || middle < left || middle <= right) continue
    // The top of the parabola through the logarithms lies between the bins, near the frequency itself.
    const [a, b, c] = [Math.log(left), Math.log(middle), Math.log(right)]
    const offset = (a - c) / (2 * (a - 2 * b + c))
    peaks.push({
      hertz: ((bin + offset) * rate) / frameLength,
      amplitude: Math.exp((b - ((a - c) * offset) / 4) / 2),
    })
  }
  return peaks
}

function noteOf(hertz: number): string {
  const semitones = Math.round(12 * Math.log2(hertz / 440)) + 57
  const names = ['C', 'C♯', 'D', 'D♯', 'E', 'F', 'F♯', 'G', 'G♯', 'A', 'A♯', 'B']
  return `${names[((semitones % 12) + 12) % 12]}${Math.floor(semitones / 12)}`
}

/** Compares some amplitudes with the sum that defines them. */
async function checkAgainstDefinition(frame: Float64Array): Promise<void> {
  const amplitudes = await spectrum(frame)
  const bins = [0, 1, 113, 225, frameLength / 2]
  const errors = bins.map((bin) => {
    let [real, imaginary] = [0, 0]
    frame.forEach((sample, n) => {
      const windowed = (sample * 2 * (1 - Math.cos((2 * Math.PI * n) / frameLength))) / frameLength
      real += windowed * Math.cos((2 * Math.PI * bin * n) / frameLength)
      imaginary += windowed * Math.sin((2 * Math.PI * bin * n) / frameLength)
    })
    return Math.abs(amplitudes[bin]! - Math.hypot(real, imaginary))
  })
  const error = Math.max(...errors)
  // A comparison with NaN is false.
  if (!(error < 1e-12)) throw new Error(`the spectrum is off by ${error}`)
  console.log(`${bins.length} amplitudes agree with the definition of the transform within ${error.toExponential(1)}`)
}

/** The notes make-chord.mjs put into the file, each with amplitude 0.1. */
function checkChord(): void {
  const notes = [220, 277.18, 329.63, 440]
  const found = notes.every((hertz, index) => {
    const peak = peaks[index]
    return peak && Math.abs(peak.hertz - hertz) < 0.5 && Math.abs(peak.amplitude - 0.1) < 0.01
  })
  if (!found || peaks.length !== notes.length) throw new Error(`expected the notes ${notes.join(', ')} Hz and no other`)
  console.log('the chord is A3, C♯4, E4, A4, each within 0.5 Hz and 10 % of its amplitude')
}

/** Plans are made at the first call with a length, once in each worker that gets one, and kept. */
async function measurePlanning(): Promise<void> {
  const samples = new Float64Array(15_000)
  const times: number[] = []
  for (let call = 0; call < 200; call++) {
    const start = performance.now()
    await spectrum(samples)
    times.push(performance.now() - start)
  }
  const [first = NaN] = times
  const median = times.sort((a, b) => a - b)[times.length / 2]!
  const plans = new Int32Array((await analyser.state.get('plans'))?.slice().buffer ?? [])
  console.log(
    `await spectrum(${samples.length} samples) over ${analyser.transport}: ${first.toFixed(1)} ms with a new plan, ` +
      `${median.toFixed(2)} ms in the median of ${times.length} calls\n` +
      `${plans[0]} plans were made for 2 lengths in ${workers} workers`,
  )
}
