/** OS processes that peers consist of. None of them outlives this one. */
import { fork, spawn, type ChildProcess } from 'node:child_process'
import { accessSync, constants } from 'node:fs'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { endsWithThis } from '../../src/bench/children.js'
import { moveServer } from './cores.js'

let lose: (why: Error) => void = () => undefined
/** Rejects when a server ends that was not stopped: its clients would wait for ever. */
export const serverLost = new Promise<never>((_, reject) => (lose = reject))
serverLost.catch(() => undefined)

const stopped = new WeakSet<ChildProcess>()

function watch(child: ChildProcess, what: string): void {
  child.once('exit', (status, signal) => {
    if (!stopped.has(child)) lose(new Error(`${what} has ended unasked: ${signal ?? `status ${status}`}`))
  })
}

/** Ends a child and waits until it has ended. */
export async function stop(child: ChildProcess): Promise<void> {
  stopped.add(child)
  if (child.exitCode !== null || child.signalCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}

/** Where a program is; undefined when it is not installed. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/local/sbin', '/usr/sbin']
  return folders
    .map((folder) => join(folder, name))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK)
        return true
      } catch {
        return false
      }
    })
}

/** What a peer says that needs a program of the system. */
export function programMissing(name: string, debianPackage: string): string | undefined {
  return findProgram(name) === undefined ? `no ${name}; it is in the Debian package ${debianPackage}` : undefined
}

/** What a peer says whose package cannot be loaded. */
export async function packageMissing(load: () => Promise<unknown>): Promise<string | undefined> {
  try {
    await load()
    return undefined
  } catch (error) {
    return (error as Error).message.split('\n', 1)[0]
  }
}

/**
 * Starts a program and waits until its output matches.
 *
 * @throws Error with the end of its output when it ends before
 */
export async function startProgram(command: string, args: readonly string[], ready: RegExp): Promise<ChildProcess> {
  const child = endsWithThis(spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] }))
  let output = ''
  await new Promise<void>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-65_536)
      if (ready.test(output)) resolve()
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.once('error', reject)
    child.once('exit', () => reject(new Error(`${command} ended before it was ready: ${output.trim().slice(-500)}`)))
  })
  watch(child, command)
  await moveServer(child.pid)
  return child
}

export interface ServerOptions {
  /** How messages of the channel between parent and server are written. Default: `json`. */
  readonly serialization?: 'json' | 'advanced'
  /** What `serve` gets. */
  readonly argument?: string
}

/** Runs `serve` of a module of this folder in a Node process of its own. `address` is what it resolved to. */
export async function startServer(
  module: string,
  options: ServerOptions = {},
): Promise<{ readonly child: ChildProcess; readonly address: string }> {
  const { serialization = 'json', argument = '' } = options
  const server = fileURLToPath(new URL('./server.js', import.meta.url))
  const child = endsWithThis(fork(server, [module, argument], { serialization }))
  const address = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve((message as { readonly address: string }).address))
    child.once('exit', () => reject(new Error(`the server of ${module} ended before it was ready`)))
  })
  watch(child, `the server of ${module}`)
  await moveServer(child.pid)
  return { child, address }
}

/** A TCP port that is free now. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  await once(server, 'close')
  if (address === null || typeof address === 'string') throw new Error('no TCP port')
  return address.port
}
