export { Cluster, type GetProcessOptions } from './client/cluster.js'
export { connect, type ConnectOptions } from './client/connect.js'
export { Process, type ConnectionInfo, type FunctionSignature, type StopOptions } from './client/process.js'
export type { InvokeOptions } from './client/call.js'
export type { ManyOptions, ManyResult } from './client/many.js'
export { Lease, type LeaseInvokeOptions } from './client/lease.js'
export type { LeaseOptions } from './client/lease_options.js'
export type { LeaseNotice } from './client/lease_notices.js'
export type { LeaseList, LeasePhases, LeaseReport, LeasedWorkerReport, LeaseUse } from './client/lease_report.js'
export type { LeasedWorkerInfo } from './client/leased_workers.js'
export type { SpreadOptions, SpreadResult } from './client/spread.js'
export type { StreamOptions } from './client/stream.js'
export type { RemoteFunctionOf, RemoteFunctions } from './client/stub.js'
export {
  ClientState,
  type ClientStateSetOptions,
  type PublishOptions,
  type StateOptions,
  type StateValueOptions,
} from './client/state.js'
export type { CreateOptions, DataOptions } from './client/process_options.js'
export type { TokenOptions } from './client/token_options.js'
export type { TokenVerb } from './token.js'
export type { DeployOptions, NativeFunctionOptions } from './client/deploy_options.js'
export type { LocalOptions } from './agent/cluster_local.js'
export type {
  AppDescription,
  NativeAbi,
  NativeFunctionDescription,
  ProcessDescription,
  ProcessState,
  WorkerDescription,
  WorkerKind,
} from './control.js'
export {
  defineFunction,
  type DefinedFunction,
  type DefinedStreamFunction,
  type FunctionOptions,
  type StreamFunctionOptions,
} from './function/define.js'
export type {
  Context,
  KeyInfo,
  LockOptions,
  NestedCallOptions,
  StateDeleteOptions,
  StateEntry,
  StatePublishOptions,
  StateLock,
  StateSetOptions,
  StateWaitOptions,
  WorkerState,
} from './function/context.js'
export type { Bytes, CodecName, TypedArray, TypedArrayConstructor, TypedArrayName } from './codecs.js'
export type { Duration, Size } from './units.js'
export {
  ArgumentError,
  ConnectionError,
  DeployError,
  errorCodes,
  FunctionError,
  InvocationError,
  LeaseError,
  PayloadError,
  PraasError,
  ProcessError,
  StateError,
  SystemError,
  WorkerError,
  type ErrorCode,
  type ErrorFamily,
  type PraasErrorOptions,
  type RemoteError,
  type WorkerExit,
} from './errors.js'
export { capabilities, type Capabilities } from './capabilities.js'
