// The part of the peers' packages that is used here. Their own types are at hand only after scripts/bench-peers has
// installed them, and everything is type-checked without.

declare module '@grpc/grpc-js' {
  export interface MethodDefinition {
    readonly path: string
    readonly requestStream: false
    readonly responseStream: false
    readonly requestSerialize: (value: Buffer) => Buffer
    readonly requestDeserialize: (bytes: Buffer) => Buffer
    readonly responseSerialize: (value: Buffer) => Buffer
    readonly responseDeserialize: (bytes: Buffer) => Buffer
  }
  export type Callback = (error: Error | null, reply?: Buffer) => void
  export type Options = Readonly<Record<string, number>>
  export interface Credentials {
    readonly _kind?: 'channel' | 'server'
  }
  export const credentials: { createInsecure(): Credentials }
  export const ServerCredentials: { createInsecure(): Credentials }
  export class Client {
    constructor(address: string, credentials: Credentials, options?: Options)
    makeUnaryRequest(
      path: string,
      serialize: (value: Buffer) => Buffer,
      deserialize: (bytes: Buffer) => Buffer,
      argument: Buffer,
      callback: Callback,
    ): unknown
    close(): void
  }
  export class Server {
    constructor(options?: Options)
    addService(
      service: Readonly<Record<string, MethodDefinition>>,
      handlers: Readonly<Record<string, (call: { readonly request: Buffer }, callback: Callback) => void>>,
    ): void
    bindAsync(address: string, credentials: Credentials, done: (error: Error | null, port: number) => void): void
  }
}

declare module 'zeromq' {
  interface SocketOptions {
    readonly linger?: number
  }
  export class Request {
    constructor(options?: SocketOptions)
    connect(address: string): void
    send(message: Uint8Array): Promise<void>
    receive(): Promise<[Buffer]>
    close(): void
  }
  export class Reply implements AsyncIterable<[Buffer]> {
    constructor(options?: SocketOptions)
    readonly lastEndpoint: string | null
    bind(address: string): Promise<void>
    send(message: Uint8Array): Promise<void>
    [Symbol.asyncIterator](): AsyncIterator<[Buffer]>
  }
}

declare module 'piscina' {
  export class Piscina {
    constructor(options: {
      readonly filename: string
      readonly minThreads: number
      readonly maxThreads: number
      readonly idleTimeout: number
      readonly concurrentTasksPerWorker: number
    })
    run(task: Uint8Array, options: { readonly name: string }): Promise<Uint8Array>
    destroy(): Promise<void>
  }
}

declare module 'ioredis' {
  export class Redis {
    constructor(options: {
      readonly host?: string
      readonly port?: number
      readonly path?: string
      readonly enableAutoPipelining?: boolean
    })
    set(key: string, value: Buffer): Promise<'OK'>
    getBuffer(key: string): Promise<Buffer | null>
    disconnect(): void
  }
}

declare module '@nats-io/transport-node' {
  export interface Message {
    readonly data: Uint8Array
    respond(data: Uint8Array): boolean
  }
  export interface Connection {
    request(subject: string, data: Uint8Array, options: { readonly timeout: number }): Promise<Message>
    subscribe(subject: string, options: { readonly callback: (error: Error | null, message: Message) => void }): unknown
    flush(): Promise<void>
    close(): Promise<void>
  }
  export function connect(options: { readonly servers: string }): Promise<Connection>
}
