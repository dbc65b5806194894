// Makes a target of test/fuzz in TypeScript a program that counts how often an input reaches each place of it, for
// test/fuzz/node_driver.cc. Beside it, NAME_fuzz.dict gets the texts in this package's own code, for libFuzzer to try.
//
// usage: node scripts/instrument.mjs test/fuzz/NAME_fuzz.ts FOLDER/NAME_fuzz.mjs
import { writeFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build } from 'esbuild'
import ts from 'typescript'

/** What the program calls its counters. */
const counters = 'praasReached'

const branching = new Set([
  ts.SyntaxKind.AmpersandAmpersandToken,
  ts.SyntaxKind.BarBarToken,
  ts.SyntaxKind.QuestionQuestionToken,
  ts.SyntaxKind.AmpersandAmpersandEqualsToken,
  ts.SyntaxKind.BarBarEqualsToken,
  ts.SyntaxKind.QuestionQuestionEqualsToken,
])

const [source, target] = process.argv.slice(2)
if (source === undefined || target === undefined) {
  console.error('usage: node scripts/instrument.mjs test/fuzz/NAME_fuzz.ts FOLDER/NAME_fuzz.mjs')
  process.exit(2)
}
const { text, places, texts } = instrument(await bundle(source, target))
writeFileSync(target, `const ${counters} = new Uint8Array(${places}); ${text}`)
writeFileSync(target.replace(/mjs$/, 'dict'), texts.map((each) => `"${escaped(each)}"\n`).join(''))

/** The target and all it imports, the sources of this package instead of its build. */
async function bundle(source, outfile) {
  const { outputFiles } = await build({
    stdin: {
      contents: [
        `import { fuzz } from ${JSON.stringify(resolve(source))}`,
        `import { serve } from ${JSON.stringify(resolve('test/fuzz/node_loop.ts'))}`,
        `await serve(fuzz, ${counters})`,
      ].join('\n'),
      resolveDir: '.',
    },
    outfile,
    write: false,
    bundle: true,
    platform: 'node',
    format: 'esm',
    target: 'node20.19',
    sourcemap: 'inline',
    define: { 'import.meta.url': urlOf('src/package.ts') },
    // `bindings`, a CommonJS package, calls it.
    banner: {
      js: `globalThis.require = process.getBuiltinModule('node:module').createRequire(${urlOf('package.json')});`,
    },
    logLevel: 'warning',
  })
  return outputFiles[0].text
}

/** Inserts without new lines, so that source maps keep all line numbers. */
function instrument(code) {
  const file = ts.createSourceFile('program.mjs', code, ts.ScriptTarget.Latest, true, ts.ScriptKind.JS)
  // esbuild names each module in front of it.
  const modules = [...code.matchAll(/^\/\/ (\S+)$/gm)]
  const isOurs = ({ pos }) => modules.findLast(({ index }) => index < pos)?.[1].startsWith('src/') === true
  const texts = new Set()
  const insertions = []
  let places = 0
  const count = () => `${counters}[${places++}]++`
  // Of several at one place, what belongs outside comes first before a node, and last after it.
  const before = (at, text) => insertions.push({ at, text, order: insertions.length })
  const after = (at, text) => insertions.push({ at, text, order: -insertions.length })
  const statement = (node) => {
    if (ts.isBlock(node)) return before(node.getStart(file) + 1, `${count()};`)
    before(node.getStart(file), `{${count()};`)
    after(node.end, '}')
  }
  const expression = (node) => {
    before(node.getStart(file), `(${count()},(`)
    after(node.end, '))')
  }
  const visit = (node) => {
    if (ts.isFunctionLike(node) && node.body) {
      if (ts.isBlock(node.body)) statement(node.body)
      else expression(node.body)
    } else if (ts.isIfStatement(node)) {
      statement(node.thenStatement)
      if (node.elseStatement) statement(node.elseStatement)
    } else if (ts.isIterationStatement(node, false)) {
      statement(node.statement)
    } else if (ts.isCatchClause(node)) {
      statement(node.block)
    } else if (ts.isCaseOrDefaultClause(node)) {
      if (node.statements[0]) before(node.statements[0].getStart(file), `${count()};`)
    } else if (ts.isConditionalExpression(node)) {
      expression(node.whenTrue)
      expression(node.whenFalse)
    } else if (ts.isBinaryExpression(node) && branching.has(node.operatorToken.kind)) {
      expression(node.right)
    } else if ((ts.isStringLiteral(node) || isKey(node)) && /^.{2,32}$/.test(node.text) && isOurs(node)) {
      texts.add(node.text)
    }
    ts.forEachChild(node, visit)
  }
  visit(file)
  insertions.sort((a, b) => a.at - b.at || a.order - b.order)
  const starts = [0, ...insertions.map(({ at }) => at)]
  const text = starts
    .map((at, index) => (insertions[index - 1]?.text ?? '') + code.slice(at, starts[index + 1]))
    .join('')
  return { text, places, texts: [...texts] }
}

/** Whether it is a name in an object, as schemas have them. */
function isKey(node) {
  return ts.isIdentifier(node) && ts.isPropertyAssignment(node.parent) && node.parent.name === node
}

/** As libFuzzer reads it: other bytes than plain ones in hexadecimal. */
function escaped(text) {
  const escape = (byte) => `\\x${byte.toString(16).padStart(2, '0')}`
  const isPlain = (byte) => byte >= 0x20 && byte < 0x7f && byte !== 0x22 && byte !== 0x5c
  return [...Buffer.from(text)].map((byte) => (isPlain(byte) ? String.fromCharCode(byte) : escape(byte))).join('')
}

/** For code: the URL of a file of this package. */
function urlOf(path) {
  return JSON.stringify(pathToFileURL(resolve(path)).href)
}
