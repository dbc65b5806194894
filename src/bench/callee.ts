/** What calls are made to: a process, whose host passes them on, or workers of it that are leased. */
import type { InvokeOptions } from '../client/call.js'

/** The part of both that benchmarks use. */
export interface Callee {
  readonly transport: string
  invoke(name: string, input: Uint8Array, options?: InvokeOptions): Promise<Uint8Array>
  invokeSync(name: string, input: Uint8Array, options?: InvokeOptions): Uint8Array
  invokeMany(name: string, inputs: Iterable<Uint8Array>, options: { readonly inFlight: number }): AsyncIterable<unknown>
  allocate(bytes: number): Uint8Array
  release(memory: Uint8Array): void
}
