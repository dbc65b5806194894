import { describe, expect, it } from 'vitest'
import { lockedMemory, noDevice, rdmaPort, settings } from '../../src/cli/doctor_rdma.js'
import { loopback } from '../../src/cli/doctor_loopback.js'
import type { RdmaDevice, RdmaPort } from '../../src/native/binding.js'

const port: RdmaPort = {
  ...{ number: 2, state: 'active', active: true, ethernet: true, mtuBytes: 4096, lid: 0 },
  gids: [{ index: 3, address: '::ffff:10.0.0.1', type: 'RoCE v2' }],
}
const device: RdmaDevice = { name: 'mlx5_0', maxQueuePairs: 1, maxMemoryRegions: 1, ports: [port] }

describe('what praas doctor says about RDMA', () => {
  it('of ports: link, state, addresses, and what is missing', () => {
    expect(rdmaPort('RDMA mlx5_0', port)).toEqual({
      ...{ what: 'RDMA mlx5_0 port 2', state: 'ok' },
      found: 'RoCE, active, MTU 4096, GIDs 3 ::ffff:10.0.0.1 RoCE v2',
    })
    const down = rdmaPort('RDMA mlx5_0', { ...port, state: 'down', active: false })
    expect(down).toMatchObject({ state: 'note', remedy: expect.stringContaining('network interface') })
    const unmanaged = rdmaPort('RDMA mlx5_0', { ...port, ethernet: false, lid: 7, state: 'init', active: false })
    expect(unmanaged.found).toContain('InfiniBand, LID 7, init')
    expect(unmanaged.remedy).toContain('subnet manager')
    const local = [{ index: 0, address: 'fe80::1', type: 'RoCE v2' }]
    expect(rdmaPort('RDMA mlx5_0', { ...port, gids: local }).remedy).toContain('IPv4')
    expect(rdmaPort('RDMA mlx5_0', { ...port, gids: [] }).found).toContain('GIDs none')
  })

  it('of devices that are not there, or only for the kernel', () => {
    expect(noDevice([])).toMatchObject({ state: 'note', found: 'none', remedy: expect.stringContaining('driver') })
    expect(noDevice(['mlx5_0'])).toMatchObject({ state: 'bad', found: expect.stringContaining('mlx5_0') })
    expect(noDevice(['mlx5_0']).remedy).toContain('ib_uverbs')
  })

  it('of locked memory, where a device needs it', () => {
    expect(lockedMemory(-1, true)).toMatchObject({ state: 'ok', found: 'unlimited' })
    expect(lockedMemory(8 << 20, false)).toMatchObject({ state: 'ok', found: '8 MiB' })
    expect(lockedMemory(64 << 20, true).state).toBe('ok')
    expect(lockedMemory(8 << 20, true)).toMatchObject({ state: 'note', found: expect.stringMatching(/8 MiB.*pieces/) })
    expect(lockedMemory(64 << 10, true)).toMatchObject({ state: 'note', found: expect.stringMatching(/64 KiB.*TCP/) })
    expect(lockedMemory(64 << 10, true).remedy).toContain('memlock')
  })

  it('of settings', () => {
    expect(settings([device], {})).toEqual([])
    expect(settings([device], { PRAAS_IB_DEVICE: 'mlx5_0', PRAAS_IB_PORT: '2' })).toEqual([
      { what: 'RDMA settings', state: 'ok', found: 'PRAAS_IB_DEVICE=mlx5_0 PRAAS_IB_PORT=2' },
    ])
    const [wrong] = settings([device], { PRAAS_IB_DEVICE: 'mlx5_9' })
    expect(wrong).toMatchObject({ state: 'bad', remedy: 'there is no device mlx5_9: mlx5_0' })
  })

  it('of calls to itself where no device can be used', async () => {
    const unusable = [
      { ...device, error: 'it cannot be opened' },
      { ...device, ports: [{ ...port, active: false }] },
    ]
    for (const devices of [[], unusable]) {
      expect(await loopback({ devices })).toMatchObject([{ state: 'note', found: expect.stringContaining('not run') }])
    }
  })
})
