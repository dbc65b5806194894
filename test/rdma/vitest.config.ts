import { defineConfig } from 'vitest/config'
import shared from '../../vitest.config.js'

/** Run by scripts/test-rdma where there is a device: mostly in a guest whose processor is emulated. */
export default defineConfig({
  ...shared,
  test: {
    ...shared.test,
    include: ['test/rdma/**/*.test.ts'],
    exclude: [],
    // The build is made outside of the guest.
    globalSetup: [],
    // One OS process that loads everything once: loading takes longer there than most tests.
    fileParallelism: false,
    isolate: false,
    testTimeout: 300_000,
    hookTimeout: 300_000,
  },
})
