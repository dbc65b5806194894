/** The floor of everything that starts Node. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { childEnvironment } from './environment.js'
import { batchOf, sampler, type Sampler } from './sampler.js'

/** `node -e 0`: the start and the end of a Node that does nothing. */
export function startingNode(): Sampler {
  const environment = childEnvironment()
  return sampler({}, async (count) => {
    const timesNs = new Float64Array(count)
    for (let index = 0; index < count; index++) {
      const began = performance.now()
      await once(spawn(process.execPath, ['-e', '0'], { stdio: 'ignore', env: environment }), 'exit')
      timesNs[index] = (performance.now() - began) * 1e6
    }
    return batchOf(timesNs)
  })
}
