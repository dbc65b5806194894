import { execFile } from 'node:child_process'
import { mkdir } from 'node:fs/promises'
import { availableParallelism } from 'node:os'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { ExternalSampler } from '../../src/bench/external_sampler.js'
import type { FunctionName } from '../../src/bench/result.js'
import { onBothCores } from './cores.js'
import { named, type Peer, type PeerLabels } from './peer.js'
import { programMissing } from './service.js'

const run = promisify(execFile)
const source = fileURLToPath(new URL('../../../bench/peers/mpi_ping_pong.c', import.meta.url))
const program = fileURLToPath(new URL('./mpi_ping_pong', import.meta.url))

// Ranks that wait yield: with as many cores as ranks and others on them, a pure spin can take milliseconds.
const common = ['-n', '2', '--mca', 'mpi_yield_when_idle', '1', '--mca', 'pml', 'ob1', '--mca', 'btl']
const environment = { OMPI_ALLOW_RUN_AS_ROOT: '1', OMPI_ALLOW_RUN_AS_ROOT_CONFIRM: '1' }

/** MPI_Send and MPI_Recv of two ranks, in C: it copies, and has neither functions nor a client that does other things. */
function mpi(transport: 'shm' | 'tcp', called: FunctionName): Peer {
  const labels: PeerLabels = {
    ...{ transport, path: null, mode: 'hot', kind: 'native', function: called, call: 'sync', client: 'native' },
  }
  return {
    ...named(`mpi-${transport}`, `OpenMPI ping-pong, ${transport === 'shm' ? 'shared memory' : 'TCP'}`, called),
    labels,
    concurrent: false,
    missing: async () => programMissing('mpicc', 'libopenmpi-dev') ?? programMissing('mpirun', 'openmpi-bin'),
    open: async () => {
      await mkdir(fileURLToPath(new URL('./', import.meta.url)), { recursive: true })
      await run('mpicc', ['-std=c11', '-O2', '-Wall', '-Wextra', source, '-o', program])
      const layer = transport === 'shm' ? ['self,vader'] : ['self,tcp', '--mca', 'btl_tcp_if_include', 'lo']
      const crowded = availableParallelism() < 2 ? ['--oversubscribe'] : []
      const touch = called === 'touch' ? ['--touch'] : []
      return {
        sampler: ({ bytes }) => {
          const args = [...crowded, ...common, ...layer, program, '--bytes', String(bytes), ...touch]
          return ExternalSampler.start({ ...onBothCores('mpirun', args), environment })
        },
        close: async () => undefined,
      }
    },
  }
}

export const mpiShm = mpi('shm', 'null')
export const mpiTcp = mpi('tcp', 'null')
export const mpiShmTouch = mpi('shm', 'touch')
export const mpiTcpTouch = mpi('tcp', 'touch')
