/** How long a native worker alone takes, without agent and Node, from its start to its first result. */
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { nativeWorkerExecutablePath } from '../../native/binding.js'
import { childEnvironment } from '../environment.js'
import { benchProgram } from '../programs.js'
import type { Quantity } from '../result.js'

interface Starts {
  readonly min: number
  readonly p50: number
}

const names: Readonly<Record<string, string>> = {
  true: '/bin/true, started and waited for',
  host: 'a host without workers, until it takes connections',
  hostAndCall: 'a host with a native worker, to the first result of a native client',
  worker: 'the native worker of that, from its start to its first result',
}

/** The program takes at least so many. */
const fewest = 10

export async function nativeStarts(samples: number): Promise<Quantity[]> {
  const library = benchProgram('praas-bench-functions.so')
  const args = [nativeWorkerExecutablePath(), library, String(Math.max(samples, fewest))]
  const { stdout } = await promisify(execFile)(benchProgram('praas-bench-cold'), args, { env: childEnvironment() })
  return Object.entries(JSON.parse(stdout) as Record<string, Starts>).flatMap(([key, { min, p50 }]) => {
    const quantity = (which: string, value: number): Quantity => {
      return { suite: 'cold', name: `${names[key] ?? key}, ${which}`, value, unit: 'ms' }
    }
    const median = quantity('median', p50)
    // What the worker takes is the difference of two starts, whose extremes are not of the same moment.
    return key === 'worker' ? [median] : [median, quantity('fastest', min)]
  })
}
