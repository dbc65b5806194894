/** What a worker is told about the application it serves. Travels as JSON from the agent through the host. */
export interface LoadedApp {
  readonly name: string
  /** Absolute path of the bundle, an ES module. */
  readonly bundle: string
  /** Folder of the application's entry file. */
  readonly root: string
  /** Path of the entry file. */
  readonly entry: string
  /** Of the bundle's contents. */
  readonly hash: string
  /** Its native functions, which other workers run: what callers have to know of them. */
  readonly native: readonly { readonly name: string; readonly flags: number }[]
  /** URL of the agent's control plane, for calls to other processes. */
  readonly control: string
  /** Views handed to functions are buffers of their own, detached when the handler settles. */
  readonly checkViews: boolean
}
