// The other thread of `threads.ts`.
import { parentPort, workerData } from 'node:worker_threads'
import type { FunctionName } from '../../src/bench/result.js'
import { answerOf } from './answers.js'

const called = workerData as FunctionName
parentPort?.on('message', (message: Uint8Array) => parentPort?.postMessage(answerOf(called, message)))
