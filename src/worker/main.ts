/**
 * Entry of a worker: an OS process that runs the functions of one application for one cloud process.
 *
 * `scripts/bundle-worker` makes one CommonJS file of it, because Node takes longer to load many modules than to start.
 */
import { writeSync } from 'node:fs'
import { createRequire } from 'node:module'
import { inspect } from 'node:util'
import { pathToFileURL } from 'node:url'
import type { LoadedApp } from '../app.js'
import { codeOf, messageOf } from '../errors.js'
import type { NativeBinding } from '../native/binding.js'
import { collectFunctions } from './functions.js'
import { WorkerServer } from './server.js'
import { prepareGuards } from './views.js'

process.setSourceMapsEnabled(true)
process.title = 'praas-worker'

// A worker in an unknown state must not go on serving calls. The host sees its end, fails what it ran, and starts another.
process.on('uncaughtException', (error, origin) => {
  const what = origin === 'unhandledRejection' ? 'unhandled rejection' : 'uncaught exception'
  // Written at once: the host quotes the end of stderr in ERR_WORKER_CRASHED.
  writeSync(2, `praas worker ends because of an ${what}: ${inspect(error)}\n`)
  process.exit(1)
})

const fd = Number(process.env['PRAAS_WORKER_FD'])
// Children of the application must not take the socket for theirs.
delete process.env['PRAAS_WORKER_FD']
const [, script = '', addon] = process.argv
if (!Number.isInteger(fd) || fd < 3 || addon === undefined) {
  writeSync(2, 'usage: PRAAS_WORKER_FD=N main.cjs ADDON; workers are started by praas-host\n')
  process.exit(2)
}
const require = createRequire(script)
void serve(require(addon) as NativeBinding)

async function serve(binding: NativeBinding): Promise<void> {
  // A worker that is not attached at once belongs to a pool, and has time now.
  const waiting = setTimeout(prepare, 10)
  const worker = await binding.attachWorker(fd)
  clearTimeout(waiting)
  process.title = `praas-worker ${worker.processId}`
  const app = JSON.parse(await worker.waitForLoad()) as LoadedApp
  try {
    const functions = collectFunctions(await load(app.bundle))
    new WorkerServer(worker, app, functions).start()
    // Whoever waited for the process calls it now; that should not wait any longer.
    setTimeout(prepareGuards, 20)
  } catch (error) {
    const detail = inspect(error)
    writeSync(2, `praas worker cannot load ${app.entry}: ${detail}\n`)
    worker.loadFailed(`cannot load ${app.entry}: ${messageOf(error)}`)
  }
}

/** Does what loading an application and its first call would have to do. */
function prepare(): void {
  prepareGuards()
  require('../function/define.js')
}

/** An ES module: by `require`, which is half the work of `import()`, unless the module awaits something at its top level. */
async function load(path: string): Promise<Record<string, unknown>> {
  try {
    return require(path) as Record<string, unknown>
  } catch (error) {
    if (codeOf(error) !== 'ERR_REQUIRE_ASYNC_MODULE') throw error
    return (await import(pathToFileURL(path).href)) as Record<string, unknown>
  }
}
