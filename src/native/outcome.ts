/** What `NativeWorkerHooks.invoke` returns for an asynchronous function. */
export const PENDING = 1
