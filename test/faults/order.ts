/**
 * What functions of the campaign are told: the id of their call, what to do, and with which key. 64 bytes, the key, data:
 * {id u64, operation u32, argument u32, version u64, flags u32, key bytes u32, data bytes u32, 0}. Answers of operations on state:
 * {status u32, existed u32, version u64, number u64, 0 u64} and data. test/faults/functions.c reads and writes the same.
 */
export const operations = {
  get: 1,
  set: 2,
  append: 3,
  patch: 4,
  delete: 5,
  increment: 6,
  stat: 7,
  publish: 8,
  unpublish: 9,
  /** The value where it lies (TypeScript), or a copy of it (native). `get` is the other way round. */
  view: 10,
  list: 11,
} as const
export const statuses = { done: 0, absent: 1, mismatch: 2, memory: 3 } as const
export const hasVersion = 1
export const orderBytes = 64
export const answerBytes = 32
/** Of the argument of `lock`: above it, whether it is for writing; below, milliseconds to hold it. */
export const lockWrite = 1 << 16

export interface Order {
  readonly id: number
  readonly operation?: number
  readonly argument?: number
  readonly version?: string | undefined
  readonly key?: string
  readonly data?: Uint8Array
}

export function writeOrder({ id, operation = 0, argument = 0, version, key = '', data }: Order): Buffer {
  const name = Buffer.from(key)
  const order = Buffer.allocUnsafe(orderBytes + name.byteLength + (data?.byteLength ?? 0)).fill(0, 0, orderBytes)
  order.writeBigUInt64LE(BigInt(id), 0)
  order.writeUInt32LE(operation, 8)
  order.writeUInt32LE(argument, 12)
  if (version !== undefined) order.writeBigUInt64LE(BigInt(version), 16)
  order.writeUInt32LE(version === undefined ? 0 : hasVersion, 24)
  order.writeUInt32LE(name.byteLength, 28)
  order.writeUInt32LE(data?.byteLength ?? 0, 32)
  order.set(name, orderBytes)
  if (data) order.set(data, orderBytes + name.byteLength)
  return order
}

export interface GivenOrder {
  readonly id: bigint
  readonly operation: number
  readonly argument: number
  readonly version: bigint | undefined
  readonly key: string
  readonly data: Uint8Array
}

export function readOrder(input: Uint8Array): GivenOrder {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength)
  const keyEnd = orderBytes + view.getUint32(28, true)
  return {
    id: view.getBigUint64(0, true),
    operation: view.getUint32(8, true),
    argument: view.getUint32(12, true),
    version: (view.getUint32(24, true) & hasVersion) === 0 ? undefined : view.getBigUint64(16, true),
    key: new TextDecoder().decode(input.subarray(orderBytes, keyEnd)),
    data: input.subarray(keyEnd, keyEnd + view.getUint32(32, true)),
  }
}

export interface Answer {
  readonly status: number
  readonly existed: boolean
  readonly version: string
  readonly number: number
  readonly data: Buffer
}

export function writeAnswer(status: number, version: bigint, existed: boolean, number = 0, data?: Uint8Array): Buffer {
  const answer = Buffer.alloc(answerBytes + (data?.byteLength ?? 0))
  answer.writeUInt32LE(status, 0)
  answer.writeUInt32LE(existed ? 1 : 0, 4)
  answer.writeBigUInt64LE(version, 8)
  answer.writeBigUInt64LE(BigInt(number), 16)
  if (data) answer.set(data, answerBytes)
  return answer
}

export function readAnswer(bytes: Uint8Array): Answer {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return {
    status: buffer.readUInt32LE(0),
    existed: buffer.readUInt32LE(4) !== 0,
    version: buffer.readBigUInt64LE(8).toString(),
    number: Number(buffer.readBigUInt64LE(16)),
    data: buffer.subarray(answerBytes),
  }
}
