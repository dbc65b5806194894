/** What the files are that applications are deployed from, told by their names. */
import { basename, extname } from 'node:path'

/** `module`: TypeScript or JavaScript · `library`: a shared object · `table`: a function table of PraaS. */
export type EntryKind = 'module' | 'library' | 'table'

const sharedObject = /\.so(\.\d+)*$/

export function entryKind(path: string): EntryKind {
  if (sharedObject.test(path)) return 'library'
  return extname(path) === '.json' ? 'table' : 'module'
}

/** The name an application goes by unless it is given another: its entry's file name without extension. */
export function appName(entry: string): string {
  const extension = sharedObject.exec(entry)?.[0] ?? extname(entry)
  return basename(entry, extension)
}
