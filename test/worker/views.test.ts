import { describe, expect, it } from 'vitest'
import { CheckedViews, guardInput, guardShared, prepareGuards } from '../../src/worker/views.js'

describe('checked views', () => {
  it('are copies that are empty when the handler has settled', () => {
    const views = new CheckedViews()
    const shared = new Uint8Array([1, 2, 3])
    const kept = views.copy(shared)
    const output = views.allocate(8)
    expect([...kept]).toEqual([1, 2, 3])
    views.end()
    expect(kept.byteLength).toBe(0)
    expect(output.byteLength).toBe(0)
    expect(shared.byteLength).toBe(3)
    views.end()
  })

  it('do not mind views that were given away', () => {
    const views = new CheckedViews()
    const given = views.copy(new Uint8Array(4))
    structuredClone(given.buffer, { transfer: [given.buffer as ArrayBuffer] })
    expect(() => views.end()).not.toThrow()
  })
})

// The first to guard anything.
describe('inputs before guards are prepared', () => {
  it('are copied when they are small, so that the first call need not wait', () => {
    const small = new Uint8Array([1, 2, 3])
    expect(guardInput(small)).toEqual(small)
    expect(guardInput(small).buffer).not.toBe(small.buffer)
    prepareGuards()
    expect(guardInput(small)).toBe(small)
  })
})

describe('guarded views', () => {
  it('cannot be transferred away from others', () => {
    const view = guardShared(new Uint8Array(8))
    expect(guardShared(view)).toBe(view)
    // Node 20 copies instead, later versions throw; either way the memory stays.
    try {
      structuredClone(view.buffer, { transfer: [view.buffer as ArrayBuffer] })
    } catch (error) {
      expect((error as Error).name).toBe('DataCloneError')
    }
    expect(view.byteLength).toBe(8)
  })
})
