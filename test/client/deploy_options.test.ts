import { describe, expect, it } from 'vitest'
import { toDeployRequest, type DeployOptions } from '../../src/client/deploy_options.js'
import { ArgumentError } from '../../src/errors.js'

describe('options of a deployment', () => {
  it('are converted for the control plane', () => {
    const here = process.cwd()
    expect(
      toDeployRequest({
        app: new URL('file:///srv/app.ts'),
        native: ['libfns.so', new URL('file:///srv/libother.so')],
        functions: {
          f: { maxOutput: '1 MiB', codec: 'json', output: 'raw' },
          g: { library: 'libfns.so', symbol: 'h', abi: 'praas', idempotent: true },
          h: {},
        },
        maxOutput: 4096,
        name: 'fns',
        external: ['sharp'],
      }),
    ).toEqual({
      entry: '/srv/app.ts',
      native: [`${here}/libfns.so`, '/srv/libother.so'],
      functions: {
        f: { maxOutputBytes: 2 ** 20, input: 'json', output: 'raw' },
        g: { library: `${here}/libfns.so`, symbol: 'h', abi: 'praas', idempotent: true },
        h: {},
      },
      maxOutputBytes: 4096,
      name: 'fns',
      external: ['sharp'],
    })
    expect(toDeployRequest({ native: '/libfns.so' })).toEqual({ native: ['/libfns.so'] })
    expect(toDeployRequest({ app: 'app' })).toEqual({ entry: `${here}/app` })
  })

  it.each<[DeployOptions | { wrong: 1 }, string]>([
    [{ wrong: 1 }, 'deploy: unknown option "wrong"'],
    [{ app: '' }, 'deploy: option app'],
    [{ native: '' }, 'deploy: option native'],
    [{ name: '' }, 'deploy: option name'],
    [{ maxOutput: 0 }, 'deploy: option maxOutput: expected 1 … 4294967295 bytes, received 0'],
    [{ maxOutput: '4 GiB' }, 'deploy: option maxOutput'],
    [{ functions: { f: { maxOutput: 'much' } } }, 'deploy: function f: option maxOutput: expected bytes'],
    [
      { functions: { f: { maxOutptu: 1 } as object } },
      'deploy: function f: unknown option "maxOutptu"; known are library',
    ],
    [{ functions: { f: { abi: 'cdecl' } as object } }, 'deploy: function f: option abi'],
    [{ functions: { f: { codec: 'xml' } as object } }, 'deploy: function f: option codec'],
    [{ functions: { f: [] as object } }, 'deploy: function f: options'],
  ])('are checked: %j', (options, message) => {
    const convert = (): unknown => toDeployRequest(options as DeployOptions)
    expect(convert).toThrow(ArgumentError)
    expect(convert).toThrow(message)
  })
})
