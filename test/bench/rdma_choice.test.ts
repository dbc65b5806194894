import { describe, expect, it } from 'vitest'
import { chosenRdma } from '../../src/bench/rdma_choice.js'
import type { RdmaDevice, RdmaPort } from '../../src/native/binding.js'
import { thrown } from '../addon/support.js'

const gid = (index: number, address: string, type = 'RoCE v2'): RdmaPort['gids'][number] => ({ index, address, type })

const roce: RdmaPort = {
  ...{ number: 1, state: 'active', active: true, ethernet: true, mtuBytes: 4096, lid: 0 },
  gids: [
    gid(0, 'fe80::1', 'RoCE v1'),
    gid(1, 'fe80::1'),
    gid(2, '::ffff:10.0.0.1', 'RoCE v1'),
    gid(3, '::ffff:10.0.0.1'),
  ],
}
const down: RdmaPort = { ...roce, state: 'down', active: false }
const infiniBand: RdmaPort = { ...roce, ethernet: false, lid: 7, gids: [gid(0, 'fe80::2', 'InfiniBand')] }

const device = (name: string, ...ports: RdmaPort[]): RdmaDevice => ({
  ...{ name, maxQueuePairs: 100, maxMemoryRegions: 100 },
  ports: ports.map((port, index) => ({ ...port, number: index + 1 })),
})

describe('the device, port and address of RDMA', () => {
  const devices = [device('mlx5_0', down), device('mlx5_1', down, roce), device('mlx5_2', infiniBand)]

  it('are the first active port and its routed address', () => {
    expect(chosenRdma({ devices }, {})).toEqual({ device: 'mlx5_1', port: 2, gidIndex: 3 })
    expect(chosenRdma({ devices: [device('ib0', infiniBand)] }, {})).toMatchObject({ port: 1, gidIndex: 0 })
  })

  it('are what the environment says', () => {
    expect(chosenRdma({ devices }, { PRAAS_IB_DEVICE: 'mlx5_2' })).toMatchObject({ device: 'mlx5_2', gidIndex: 0 })
    expect(chosenRdma({ devices }, { PRAAS_IB_DEVICE: 'mlx5_1', PRAAS_IB_GID_INDEX: '1' })).toMatchObject({
      gidIndex: 1,
    })
    expect(chosenRdma({ devices }, { PRAAS_IB_DEVICE: 'mlx5_0', PRAAS_IB_PORT: '1' })).toMatchObject({ port: 1 })
  })

  it('may not be there', () => {
    expect(thrown(() => chosenRdma({ devices: [] }, {}))).toMatchObject({ code: 'ERR_UNSUPPORTED' })
    expect(thrown(() => chosenRdma({ devices }, { PRAAS_IB_DEVICE: 'none' })).message).toContain('praas doctor')
    expect(thrown(() => chosenRdma({ error: 'there is no library' }, {})).message).toBe('there is no library')
  })
})
