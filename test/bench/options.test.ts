import { describe, expect, it } from 'vitest'
import {
  coldOptions,
  invokeOptions,
  leaseOptions,
  stateOptions,
  throughputOptions,
  type InvokeArguments,
} from '../../src/bench/options.js'
import { perRound } from '../../src/bench/repetitions.js'
import { thrown } from '../addon/support.js'

const args: InvokeArguments = {
  ...{
    samples: 10,
    rounds: 2,
    transport: 'shm,tcp',
    path: 'host',
    mode: 'hot,warm',
    kind: 'ts,native',
    sizes: '64,4KiB',
  },
  ...{ call: 'sync,async', function: 'null,touch', nested: false },
  ...{ connections: '0', processes: '0', functions: '0' },
}

describe('praas bench invoke', () => {
  it('takes lists, sizes with units, and cores', () => {
    expect(invokeOptions({ ...args, pin: '0,1' })).toEqual({
      ...{ samples: 10, rounds: 2, transports: ['shm', 'tcp'], modes: ['hot', 'warm'], kinds: ['ts', 'native'] },
      paths: ['host'],
      ...{ sizes: [64, 4096], functions: ['null', 'touch'], clients: ['native', 'invokeSync', 'await invoke'] },
      ...{
        nested: false,
        loads: [{ connections: 0, processes: 0, functions: 0 }],
        pinning: { client: 0, worker: 1, host: 1 },
      },
    })
    expect(invokeOptions({ ...args, pin: '0,0,1' }).pinning).toEqual({ client: 0, worker: 0, host: 1 })
    expect(invokeOptions({ ...args, call: 'async' }).clients).toEqual(['await invoke'])
    expect(invokeOptions({ ...args, client: 'await invoke, native' }).clients).toEqual(['await invoke', 'native'])
  })

  it.each([
    [{ transport: 'ib' }, /--transport: expected some of shm, tcp, verbs, received "ib"/],
    [{ mode: '' }, /--mode: expected a list/],
    [{ sizes: '0' }, /--sizes: expected an integer, 1 … 67108864, received 0/],
    [{ sizes: '65MiB' }, /--sizes: expected an integer, 1 … 67108864/],
    [{ sizes: '4 parsecs' }, /--sizes is "4 parsecs"/],
    [{ samples: 0 }, /--samples: expected an integer, 1 … 10000000, received 0/],
    [{ rounds: 1.5 }, /--rounds/],
    [{ connections: '-1' }, /--connections: expected an integer, 0 … 100000, received -1/],
    [{ processes: '1,x' }, /--processes/],
    [{ functions: '1021' }, /--functions: expected an integer, 0 … 1020, received 1021/],
    [{ pin: '0' }, /--pin: expected CLIENT,WORKER or CLIENT,WORKER,HOST, received "0"/],
    [{ pin: '0,1,2,3' }, /--pin/],
    [{ call: 'async', client: 'native' }, /--client: none of them makes the calls/],
    [{ client: 'invokeMany' }, /--client: expected some of native, invokeSync, await invoke/],
    [{ path: 'wire' }, /--path: expected some of host, lease, received "wire"/],
  ])('refuses %o', (wrong, message) => {
    const error = thrown(() => invokeOptions({ ...args, ...wrong }))
    expect(error).toMatchObject({ code: 'ERR_ARGUMENT_INVALID' })
    expect(error.message).toMatch(message)
  })

  it('measures each number of connections with each of processes and of functions', () => {
    const { loads } = invokeOptions({ ...args, connections: '1, 1000', functions: '0,10' })
    expect(loads).toEqual([
      { connections: 1, processes: 0, functions: 0 },
      { connections: 1, processes: 0, functions: 10 },
      { connections: 1000, processes: 0, functions: 0 },
      { connections: 1000, processes: 0, functions: 10 },
    ])
  })

  it('goes through the host, to leased workers, or both ways', () => {
    expect(invokeOptions({ ...args, path: 'lease' }).paths).toEqual(['lease'])
    expect(invokeOptions({ ...args, path: 'host,lease' }).paths).toEqual(['host', 'lease'])
    expect(invokeOptions({ ...args, function: 'discard' }).functions).toEqual(['discard'])
  })
})

it('the other suites check theirs', () => {
  expect(throughputOptions({ ...args, concurrency: '1,64' })).toMatchObject({
    ...{ concurrency: [1, 64], clients: ['await invoke', 'invokeMany'] },
  })
  expect(() => throughputOptions({ ...args, concurrency: '2000' })).toThrow(
    /--concurrency: expected an integer, 1 … 1024/,
  )
  expect(stateOptions({ samples: 1, rounds: 1, sizes: '64', keys: '1,100' })).toMatchObject({ keys: [1, 100] })
  expect(() => stateOptions({ samples: 1, rounds: 1, sizes: '12', keys: '1' })).toThrow(/multiples of 8/)
  const cold = {
    ...{ samples: 1, rounds: 1, kind: 'ts', processes: '1,50', seconds: 1, workers: 0 },
    ...{ path: 'host', transport: 'shm,tcp' },
  }
  expect(coldOptions(cold)).toMatchObject({ kinds: ['ts'], processes: [1, 50] })
  expect(coldOptions({ ...cold, processes: '0' }).processes).toEqual([])
  expect(() => coldOptions({ ...cold, seconds: 0 })).toThrow(/--seconds/)
  expect(coldOptions({ ...cold, path: 'host,lease' }).paths).toEqual(['host', 'lease'])
  const lease = { kind: 'native', transport: 'tcp', samples: 2, ttl: 300, leases: 0 }
  expect(leaseOptions(lease)).toEqual({ kinds: ['native'], transports: ['tcp'], samples: 2, ttlMs: 300, leases: 0 })
  expect(() => leaseOptions({ ...lease, ttl: 10 })).toThrow(/--ttl: expected an integer, 50 … 3600000, received 10/)
  expect(() => leaseOptions({ ...lease, leases: -1 })).toThrow(/--leases/)
})

it('large payloads have fewer samples', () => {
  expect(perRound({ samples: 10_000, rounds: 5 }, 64)).toBe(2_000)
  expect(perRound({ samples: 10_000, rounds: 5 }, 2 ** 20)).toBe(256)
  expect(perRound({ samples: 10_000, rounds: 5 }, 2 ** 24)).toBe(20)
  expect(perRound({ samples: 3, rounds: 5 }, 2 ** 24)).toBe(1)
})
