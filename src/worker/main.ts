/** Entry of a worker: an OS process that runs the functions of one application for one cloud process. */
import { writeSync } from 'node:fs'
import { inspect } from 'node:util'
import { pathToFileURL } from 'node:url'
import type { LoadedApp } from '../app.js'
import { messageOf } from '../errors.js'
import { native } from '../native/binding.js'
import { collectFunctions } from './functions.js'
import { WorkerServer } from './server.js'

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
if (!Number.isInteger(fd) || fd < 3) {
  writeSync(2, 'praas worker: PRAAS_WORKER_FD is not set; workers are started by praas-host\n')
  process.exit(2)
}

const worker = await native().attachWorker(fd)
process.title = `praas-worker ${worker.processId}`
const app = JSON.parse(await worker.waitForLoad()) as LoadedApp
try {
  const module = (await import(pathToFileURL(app.bundle).href)) as Record<string, unknown>
  const functions = collectFunctions(module)
  new WorkerServer(worker, app, functions).start()
} catch (error) {
  const detail = inspect(error)
  writeSync(2, `praas worker cannot load ${app.entry}: ${detail}\n`)
  worker.loadFailed(`cannot load ${app.entry}: ${messageOf(error)}`)
}
