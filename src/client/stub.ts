/** An application's functions as typed methods of a client. */
import type { Bytes } from '../codecs.js'
import type { Context } from '../function/context.js'
import type { DefinedStreamFunction } from '../function/define.js'
import type { InvokeOptions } from './call.js'
import type { Process } from './process.js'
import type { StreamOptions } from './stream.js'

/** A function as a client calls it. Bytes may be given as any view or buffer. */
export type RemoteFunctionOf<Handler> = Handler extends DefinedStreamFunction
  ? (source: AsyncIterable<Uint8Array>, options?: StreamOptions) => AsyncGenerator<Uint8Array, void, void>
  : Handler extends () => infer Result
    ? (input?: undefined, options?: InvokeOptions) => Promise<ResultOf<Result>>
    : Handler extends (input: infer Input, context: Context) => infer Result
      ? (input: InputOf<Input>, options?: InvokeOptions) => Promise<ResultOf<Result>>
      : never

type InputOf<Input> = Uint8Array extends Input ? (Input extends Uint8Array ? Bytes : Input) : Input
type ResultOf<Result> =
  Awaited<Result> extends infer Value ? (Value extends ArrayBuffer | Buffer ? Uint8Array : Value) : never

/** The exported functions of a module as a client calls them. */
export type RemoteFunctions<Module> = {
  readonly [
    Name in keyof Module as Module[Name] extends (...parameters: never[]) => unknown ? Name : never
  ]: RemoteFunctionOf<Module[Name]>
}

type AnyRemote = (input?: unknown, options?: InvokeOptions | StreamOptions) => unknown

export function remoteFunctions<Module extends object>(process: Process): RemoteFunctions<Module> {
  const made = new Map<string, AnyRemote>()
  return new Proxy(Object.freeze(Object.create(null) as object), {
    get(_target, name) {
      // `then` would make the stub look like a promise to `await`.
      if (typeof name === 'symbol' || name === 'then') return undefined
      let remote = made.get(name)
      if (!remote) {
        remote = (input, options) =>
          isStream(input) ? process.invokeStream(name, input, options) : process.invoke(name, input, options)
        made.set(name, remote)
      }
      return remote
    },
  }) as RemoteFunctions<Module>
}

function isStream(input: unknown): input is AsyncIterable<Uint8Array> {
  return typeof input === 'object' && input !== null && Symbol.asyncIterator in input
}
