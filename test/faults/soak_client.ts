/**
 * The client of the soak: makes as many calls as it is told to, most of them one by one and blocking, every tenth thousand several
 * at a time, of mixed sizes, and checks what they return.
 */
import { connect } from '../../src/client/connect.js'
import type { Process } from '../../src/client/process.js'
import { Random } from './random.js'
import { collect } from './soak_app.js'

const [runtimeDir, id, seed, hotMs, transport] = process.argv.slice(2) as [
  string,
  string,
  string,
  string,
  'shm' | 'tcp',
]
const random = new Random(`${seed}/soak`)
const cluster = await connect(undefined, { runtimeDir, transport, hotMs: Number(hotMs) })
const served = await cluster.process(id, { create: false })

/** Inputs of all sizes, made once: what the client itself allocates is not what is looked for. */
const sizes = [0, 1, 64, 64, 64, 256, 1000, 4096, 4097, 16_384, 65_536]
const inputs = sizes.map((bytes, index) => Buffer.alloc(bytes, index + 1))
const perThousand = [60, 60, 250, 250, 250, 60, 40, 15, 10, 4, 1]
const thousand = perThousand.flatMap((count, index) => Array.from({ length: count }, () => inputs[index]!))
for (let last = thousand.length - 1; last > 0; last--) {
  const other = random.integer(0, last)
  ;[thousand[last], thousand[other]] = [thousand[other]!, thousand[last]!]
}

function check(input: Buffer, output: Uint8Array): void {
  const end = input.byteLength - 1
  if (output.byteLength === input.byteLength && output[0] === input[0] && output[end] === input[end]) return
  throw new Error(`a call of ${input.byteLength} bytes returned ${output.byteLength} others`)
}

async function makeThousand(of: Process, nth: number): Promise<void> {
  if (nth % 10 !== 0) {
    for (const input of thousand) check(input, of.invokeSync('echo', input))
    return
  }
  let index = 0
  for await (const output of of.invokeMany<Uint8Array>('echo', thousand, { inFlight: 16 }))
    check(thousand[index++]!, output)
}

process.on('message', (calls: number) => {
  void (async () => {
    for (let nth = 0; nth < calls / 1000; nth++) await makeThousand(served, nth)
    collect()
    process.send?.('done')
  })().catch((error: unknown) => {
    console.error(error)
    process.exit(1)
  })
})
process.on('disconnect', () => void cluster.close())
process.send?.('ready')
