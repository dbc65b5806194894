import { chmodSync, existsSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { describeLibrary, openLibrary, type DescribeOptions } from '../../src/deploy/native_library.js'
import { DeployError } from '../../src/errors.js'
import { compileLibrary, rawFunction } from '../support/compile.js'
import { temporaryFolder } from '../support/temporary.js'

async function refusal(failing: Promise<unknown>): Promise<string> {
  const error: unknown = await failing.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  expect(error).toBeInstanceOf(DeployError)
  expect(error).toMatchObject({ code: 'ERR_DEPLOY_FAILED' })
  return (error as Error).message
}

describe('shared objects', () => {
  it('are described by what they register and export', async () => {
    const library = join(temporaryFolder(), 'libmixed.so')
    compileLibrary(
      library,
      `#include <praas/praas.h>
       PRAAS_FUNCTION(registered) { return PRAAS_OK; }
       PRAAS_FUNCTION_WITH(repeatable, PRAAS_IDEMPOTENT) { return PRAAS_OK; }
       static uint32_t hidden(void) { return 1; }
       ${rawFunction('raw')}
       int data = 5;
       uint32_t uses(void) { return hidden(); }`,
    )
    const facts = await describeLibrary(library)
    expect(facts).toMatchObject({ library, adapter: false, relocatable: true })
    expect([...facts.functions].sort((a, b) => (a.name < b.name ? -1 : 1))).toEqual([
      { name: 'raw', abi: 'raw', flags: 0 },
      { name: 'registered', abi: 'c', flags: 0 },
      { name: 'repeatable', abi: 'c', flags: 2 },
      { name: 'uses', abi: 'raw', flags: 0 },
    ])
  })

  it('may print while they are loaded', async () => {
    const library = join(temporaryFolder(), 'libloud.so')
    compileLibrary(
      library,
      `#include <stdio.h>
       __attribute__((constructor)) static void begin(void) { puts("{ hello }"); }
       __attribute__((destructor)) static void end(void) { puts("bye"); }
       ${rawFunction('f')}`,
    )
    expect((await describeLibrary(library)).functions).toEqual([{ name: 'f', abi: 'raw', flags: 0 }])
  })

  it('are loaded from copies under the hash of their contents', async () => {
    const folder = temporaryFolder()
    const apps = join(folder, 'apps')
    mkdirSync(apps)
    const source = join(folder, 'libfns.so.1')
    compileLibrary(source, rawFunction('first'))
    const first = await openLibrary(source, apps)
    expect(first).toMatchObject({ source, adapter: false, functions: [{ name: 'first', abi: 'raw' }] })
    expect(dirname(dirname(first.path))).toBe(apps)
    expect(basename(first.path)).toBe('libfns.so.1')
    expect(await openLibrary(source, apps)).toEqual(first)

    compileLibrary(source, rawFunction('second'))
    const second = await openLibrary(source, apps)
    expect(second.functions).toMatchObject([{ name: 'second' }])
    expect(second.hash).not.toBe(first.hash)
    expect(existsSync(first.path)).toBe(true)
    expect(readdirSync(apps)).toHaveLength(2)
  })

  it('are loaded from where they lie when they look for others there', async () => {
    const folder = temporaryFolder()
    compileLibrary(join(folder, 'libhelper.so'), 'int helper(void) { return 1; }')
    const library = join(folder, 'libneeds.so')
    compileLibrary(library, `int helper(void);\n${rawFunction('f', 0)}int g(void) { return helper(); }`, {
      flags: [`-L${folder}`, '-lhelper', '-Wl,-rpath,$ORIGIN'],
    })
    const opened = await openLibrary(library, join(folder, 'apps'))
    expect(opened).toMatchObject({ source: library, path: library })
    expect(opened.hash).toMatch(/^[0-9a-f]{16}$/)
    expect(existsSync(join(folder, 'apps'))).toBe(false)
  })

  it('have to be shared objects that the dynamic loader takes', async () => {
    const folder = temporaryFolder()
    const text = join(folder, 'libtext.so')
    writeFileSync(text, 'no library')
    expect(await refusal(openLibrary(text, folder))).toContain(`cannot deploy the library ${text}: `)
    expect(await refusal(openLibrary(join(folder, 'nowhere.so'), folder))).toContain('nowhere.so')
    const needy = join(folder, 'libneedy.so')
    compileLibrary(needy, `extern int missing_thing;\n${rawFunction('f')}int g(void) { return missing_thing; }`)
    expect(await refusal(openLibrary(needy, folder))).toContain('missing_thing')
    expect(readdirSync(folder).sort()).toEqual(['libneedy.so', 'libtext.so'])
  })

  it('that crash or hang while they are loaded are refused', async () => {
    const folder = temporaryFolder()
    const library = join(folder, 'libbad.so')
    const constructor = (body: string): string =>
      `#include <stdlib.h>\n#include <unistd.h>\n__attribute__((constructor)) static void begin(void) { ${body} }\n`
    compileLibrary(library, constructor('abort();') + rawFunction('f'))
    expect(await refusal(describeLibrary(library))).toContain('SIGABRT')
    compileLibrary(library, constructor('for (;;) pause();') + rawFunction('f'))
    expect(await refusal(describeLibrary(library, { timeoutMs: 500 }))).toContain('longer than 500 ms')
  })
})

describe('the executable that describes them', () => {
  /** A program in its place that ends as told. */
  function stub(script: string): DescribeOptions {
    const executable = join(temporaryFolder(), 'praas-worker')
    writeFileSync(executable, `#!/bin/sh\n${script}\n`)
    chmodSync(executable, 0o700)
    return { executable }
  }

  it('has to be there', async () => {
    const message = await refusal(describeLibrary('/lib.so', { executable: '/nowhere/praas-worker' }))
    expect(message).toContain('/nowhere/praas-worker cannot be started (ENOENT)')
    expect(message).toContain('npm run build:native')
  })

  it('is quoted when it fails', async () => {
    expect(await refusal(describeLibrary('/lib.so', stub('echo "wrong ELF class" >&2; exit 1')))).toBe(
      'cannot deploy the library /lib.so: wrong ELF class',
    )
    expect(await refusal(describeLibrary('/lib.so', stub('exit 1')))).toContain('no reason is known')
    expect(await refusal(describeLibrary('/lib.so', stub('kill -SEGV $$')))).toContain('loading it ended with SIGSEGV')
    expect(await refusal(describeLibrary('/lib.so', stub('yes')))).toContain('prints without end')
  })

  it.each(['', 'echo nonsense', `echo '{}'`, `echo '{"library":"/l.so","adapter":false,"functions":[]}'`])(
    'has to speak our language: %s',
    async (script) => {
      expect(await refusal(describeLibrary('/lib.so', stub(script)))).toContain('says "')
    },
  )

  it('is not told the token of the cluster', async () => {
    const before = process.env['PRAAS_TOKEN']
    process.env['PRAAS_TOKEN'] = 'secret'
    try {
      expect(await refusal(describeLibrary('/lib.so', stub('echo "token:$PRAAS_TOKEN." >&2; exit 1')))).toContain(
        'token:.',
      )
    } finally {
      if (before === undefined) delete process.env['PRAAS_TOKEN']
      else process.env['PRAAS_TOKEN'] = before
    }
  })

  it('may load a library whose copy it cannot', async () => {
    const folder = temporaryFolder()
    const source = join(folder, 'lib.so')
    writeFileSync(source, 'contents')
    const facts = `{"library":"${source}","adapter":false,"relocatable":true,"functions":[]}`
    const options = stub(`if [ "$2" = ${source} ]; then echo '${facts}'; else echo "cannot map" >&2; exit 1; fi`)
    const message = await refusal(openLibrary(source, join(folder, 'apps'), options))
    expect(message).toContain(`${source} can be loaded, but its copy cannot`)
    expect(message).toContain('cannot map')
    expect(message).toContain('noexec')
  })
})
