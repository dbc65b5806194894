/** The main job as a user without rights, within the limits a container or a cluster's login gives him. */
import { execFileSync, spawnSync } from 'node:child_process'
import { chmodSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { fixtureApp } from '../support/cluster.js'
import { temporaryFolder } from '../support/temporary.js'

const program = fileURLToPath(new URL('../fixtures/unprivileged.mjs', import.meta.url))
const dist = fileURLToPath(new URL('../../dist', import.meta.url))
const nobody = 65_534

interface Seen {
  uid: number
  transport: string
  doorbell: string
  echoed: number
  full: string
  after: number
  kept: number
}

/** Why a user and a mount namespace of its own cannot be had, or undefined. */
function obstacle(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can become another user and mount a small /dev/shm'
  const probe = spawnSync('unshare', ['--mount', '--ipc', 'setpriv', `--reuid=${nobody}`, 'test', '-r', program])
  if (probe.error) return `unshare: ${probe.error.message}`
  if (probe.status !== 0)
    return `user ${nobody} cannot read ${program}, or there are no namespaces here: ${String(probe.stderr)}`
  return undefined
}

function runAsNobody(environment: string): Seen {
  const folder = temporaryFolder()
  chmodSync(folder, 0o777)
  const script = `
    mount -t tmpfs -o size=64m,mode=1777 tmpfs /dev/shm
    export HOME=${folder} PRAAS_RUNTIME_DIR=${folder}/run ${environment}
    ulimit -q 819200 -l 8192
    exec setpriv --reuid=${nobody} --regid=${nobody} --clear-groups --bounding-set=-all --inh-caps=-all \
      "$0" "$@"`
  const output = execFileSync('unshare', [
    '--mount',
    '--ipc',
    'bash',
    '-c',
    script,
    process.execPath,
    program,
    dist,
    fixtureApp,
  ])
  return JSON.parse(output.toString()) as Seen
}

const why = obstacle()
if (why !== undefined) console.log(`skipped: ${why}`)

it.skipIf(why !== undefined)('works with 64 MiB of /dev/shm and the default limits', () => {
  const seen = runAsNobody('')
  expect(seen).toMatchObject({
    uid: nobody,
    transport: 'shm',
    doorbell: 'mqueue',
    echoed: 1 << 20,
    after: 1 << 20,
    kept: 16 << 20,
  })
  // A full /dev/shm is an error of the call that needed memory, and of no other.
  expect(seen.full).toMatch(/^ERR_STATE_MEMORY: .*\/dev\/shm/)
})

it.skipIf(why !== undefined)('works where no message queue is to be had', () => {
  expect(runAsNobody('PRAAS_DOORBELL=futex')).toMatchObject({
    doorbell: expect.stringMatching(/^futex/),
    echoed: 1 << 20,
    after: 1 << 20,
  })
})
