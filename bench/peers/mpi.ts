import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { openExternal } from './external.js'
import { onBothCores } from './pinning.js'
import type { Peer } from './sampler.js'
import { programMissing } from './service.js'

const run = promisify(execFile)
const source = fileURLToPath(new URL('../../../bench/peers/mpi_ping_pong.c', import.meta.url))
const program = fileURLToPath(new URL('./mpi_ping_pong', import.meta.url))

// Ranks that wait yield: with as many cores as ranks and others on them, a pure spin can take milliseconds.
const common = ['-n', '2', '--mca', 'mpi_yield_when_idle', '1', '--mca', 'pml', 'ob1', '--mca', 'btl']

/** MPI_Send and MPI_Recv of two ranks, in C: it copies, and has neither functions nor a client that does other things. */
function mpi(transport: 'shm' | 'tcp'): Peer {
  return {
    name: `mpi-${transport}`,
    title: `OpenMPI ping-pong, ${transport === 'shm' ? 'shared memory' : 'TCP'}`,
    client: 'native',
    concurrent: false,
    missing: async () => programMissing('mpicc', 'libopenmpi-dev') ?? programMissing('mpirun', 'openmpi-bin'),
    open: async () => {
      await mkdir(fileURLToPath(new URL('./', import.meta.url)), { recursive: true })
      await run('mpicc', ['-std=c11', '-O2', '-Wall', '-Wextra', source, '-o', program])
      const layer = transport === 'shm' ? ['self,vader'] : ['self,tcp', '--mca', 'btl_tcp_if_include', 'lo']
      const crowded = availableParallelism() < 2 ? ['--oversubscribe'] : []
      return {
        sampler: ({ bytes }) => {
          const args = [...crowded, ...common, ...layer, program, '--bytes', String(bytes)]
          return openExternal(...onBothCores('mpirun', args), {
            ...process.env,
            OMPI_ALLOW_RUN_AS_ROOT: '1',
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1',
          })
        },
        close: async () => undefined,
      }
    },
  }
}

export const mpiShm = mpi('shm')
export const mpiTcp = mpi('tcp')
