// The other thread of `threads.ts`.
import { parentPort } from 'node:worker_threads'

parentPort?.on('message', (message: Uint8Array) => parentPort?.postMessage(message))
