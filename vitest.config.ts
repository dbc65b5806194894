import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

export default defineConfig({
  resolve: {
    // Tests and examples name the package as its users do, and get the sources.
    alias: [{ find: /^praas$/, replacement: fileURLToPath(new URL('./src/index.ts', import.meta.url)) }],
  },
  test: {
    include: ['test/**/*.test.ts'],
    // They need a device; scripts/test-rdma runs them where there is one, or in a guest that has one.
    exclude: ['test/rdma/**'],
    globalSetup: ['test/support/build.ts'],
    setupFiles: process.env['PRAAS_LEAKS'] === undefined ? [] : ['test/sanitize/leaks.ts'],
    // A crash in native code costs one file, not the run.
    pool: 'forks',
    // They wait more than they compute, and a user may have few message queues: two, on small machines and large ones.
    maxWorkers: 2,
    testTimeout: 60_000,
    expect: { poll: { timeout: 30_000 } },
    hookTimeout: 60_000,
    env: {
      // Every view handed to a function gets a buffer of its own, detached at the end: a kept view is found.
      PRAAS_CHECK_VIEWS: '1',
    },
  },
})
