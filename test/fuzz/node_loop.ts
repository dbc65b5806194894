/** What a target in TypeScript becomes a program by: takes inputs from test/fuzz/node_driver.cc, answers what they reached. */
import { readSync, writeSync } from 'node:fs'
import { setImmediate } from 'node:timers/promises'

/** kProgramFd of the driver. */
const fd = 3

/**
 * Runs the target for each input. Ends with the driver; with an error when the target throws.
 *
 * @param reached  A counter for each place of the program; scripts/instrument.mjs counts in it.
 */
export async function serve(target: (data: Uint8Array) => unknown, reached: Uint8Array): Promise<void> {
  const size = new Uint32Array([reached.byteLength])
  write(new Uint8Array(size.buffer))
  while (read(new Uint8Array(size.buffer))) {
    // A copy of exactly this size. It is let go after the call: what is kept of it shows.
    const data = new Uint8Array(size[0] ?? 0)
    if (!read(data)) break
    reached.fill(0)
    await target(data)
    // What nobody waits for may fail, too.
    await setImmediate()
    write(reached)
  }
  process.exit(0)
}

/** False at the end of the driver. */
function read(bytes: Uint8Array): boolean {
  let at = 0
  while (at < bytes.byteLength) {
    const received = readSync(fd, bytes, at, bytes.byteLength - at, null)
    if (received === 0) return false
    at += received
  }
  return true
}

function write(bytes: Uint8Array): void {
  let at = 0
  while (at < bytes.byteLength) at += writeSync(fd, bytes, at)
}
