/**
 * This package inside applications. It is not bundled: errors and contexts have to be of the same classes as the worker's.
 * An application gets `defineFunction` and the errors from modules the worker has loaded anyway; what else it imports
 * comes with the whole package, which is loaded only then.
 */
import { pathToFileURL } from 'node:url'
import type { Plugin } from 'esbuild'
import * as errors from '../errors.js'
import { compiledModule } from '../package.js'

export function ownPackage(): Plugin {
  return {
    name: 'praas-own-package',
    setup(build) {
      build.onResolve({ filter: /^praas$/ }, () => ({ path: 'praas', namespace: 'praas-own', sideEffects: false }))
      build.onLoad({ filter: /.*/, namespace: 'praas-own' }, () => ({
        contents: [
          reexport('function/define.js', ['defineFunction']),
          // By name: `export *` of a module that is not bundled would keep everything.
          reexport('errors.js', Object.keys(errors)),
          reexport('index.js', ['connect', 'Cluster', 'Process', 'ClientState', 'capabilities']),
        ].join('\n'),
        loader: 'js',
      }))
      build.onResolve({ filter: /^file:/, namespace: 'praas-own' }, ({ path }) => ({
        path,
        external: true,
        sideEffects: false,
      }))
    },
  }
}

function reexport(module: string, names: readonly string[]): string {
  return `export { ${names.join(', ')} } from ${JSON.stringify(urlOf(module))}`
}

function urlOf(module: string): string {
  return pathToFileURL(compiledModule(module)).href
}
