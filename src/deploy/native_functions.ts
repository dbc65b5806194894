/** Which functions of its libraries an application offers, and how they are called. */
import { basename } from 'node:path'
import { codecByName, packTraits, unpackTraits } from '../codecs.js'
import type { NativeAbi, NativeFunctionDescription, NativeFunctionRequest } from '../control.js'
import { DeployError } from '../errors.js'
import { isName, maxFunctions, maxNameBytes } from '../limits.js'
import type { TableEntry } from './function_table.js'
import type { LibraryFunction, NativeLibrary } from './native_library.js'

/** A function that native workers run. */
export interface NativeFunction extends NativeFunctionDescription {
  /** Path workers load its library from. */
  readonly path: string
  /** Of the library's contents. */
  readonly hash: string
  /** Largest result, bytes; of raw functions that were given one. */
  readonly maxOutputBytes: number | undefined
  /** As packTraits of src/codecs.ts makes them. */
  readonly flags: number
}

/** A function there is, and the name it goes by unless it is given another. */
export interface Offer {
  readonly name: string
  readonly symbol: string
  readonly abi: NativeAbi
  readonly flags: number
  readonly library: NativeLibrary
}

/** All functions of a library, by their own names. */
export function offersOfLibrary(library: NativeLibrary): Offer[] {
  return library.functions.map((found) => offer(found.name, found, library))
}

/** @throws {DeployError} `ERR_DEPLOY_FAILED` when the library has no such function */
export function offerOfTable({ name, symbol, where }: TableEntry, library: NativeLibrary): Offer {
  const found = library.functions.find((each) => each.name === symbol)
  if (found) return offer(name, found, library)
  throw failed(`${where}.code.function: ${noFunction(symbol, [library])}`)
}

export interface ChooseOptions {
  /** Default: everything that is offered, as it is. */
  readonly functions?: Readonly<Record<string, NativeFunctionRequest>> | undefined
  /** Largest result of raw functions that name none, bytes. */
  readonly maxOutputBytes?: number | undefined
}

/**
 * The functions an application has, sorted by name.
 *
 * @throws {DeployError} `ERR_DEPLOY_FAILED` for names nobody or several offer, and for options the function cannot have
 */
export function chooseFunctions(
  offers: readonly Offer[],
  libraries: readonly NativeLibrary[],
  { functions, maxOutputBytes }: ChooseOptions,
): NativeFunction[] {
  const wanted: readonly (readonly [string, NativeFunctionRequest])[] = functions
    ? Object.entries(functions)
    : [...new Set(offers.map(({ name }) => name))].map((name) => [name, {}])
  const chosen = wanted.map(([name, request]) => {
    if (!isName(name)) {
      throw failed(
        `${JSON.stringify(name.slice(0, 80))}… cannot be a name, which has 1 … ${maxNameBytes} bytes of UTF-8 without NUL; ` +
          `offer the function under another: functions: { NAME: { symbol } }`,
      )
    }
    return configure(name, findOffer(name, request, offers, libraries), request, maxOutputBytes)
  })
  if (chosen.length === 0) throw failed(noFunctions(libraries))
  if (chosen.length > maxFunctions) {
    throw failed(
      `there are ${chosen.length} functions, and ${maxFunctions} are possible; choose some with \`functions\``,
    )
  }
  return chosen.sort((a, b) => (a.name < b.name ? -1 : 1))
}

function offer(name: string, { name: symbol, abi, flags }: LibraryFunction, library: NativeLibrary): Offer {
  return { name, symbol, abi, flags, library }
}

function findOffer(
  name: string,
  { symbol, library }: NativeFunctionRequest,
  offers: readonly Offer[],
  libraries: readonly NativeLibrary[],
): Offer {
  const found = new Map<string, Offer>()
  for (const each of offers) {
    if (library !== undefined && each.library.source !== library) continue
    if (symbol === undefined ? each.name !== name : each.symbol !== symbol) continue
    // A function table and its library may both offer it.
    found.set(`${each.library.source}\0${each.symbol}`, each)
  }
  const [first, second] = found.values()
  if (!first) {
    const among = library === undefined ? libraries : libraries.filter(({ source }) => source === library)
    throw failed(noFunction(symbol ?? name, among))
  }
  if (second) {
    throw failed(
      `function ${name} is offered by ${first.library.source} (${first.symbol}) and by ${second.library.source} ` +
        `(${second.symbol}); say which with functions: { ${name}: { library, symbol } }`,
    )
  }
  return first
}

function configure(
  name: string,
  found: Offer,
  request: NativeFunctionRequest,
  defaultMaxOutputBytes: number | undefined,
): NativeFunction {
  const { symbol, library } = found
  const abi = abiOf(name, found, request.abi)
  if (abi !== 'raw' && request.maxOutputBytes !== undefined) {
    throw failed(
      `function ${name}: maxOutput is for raw functions, which cannot bound their results themselves; ` +
        `${symbol} of ${library.source} is of ABI ${abi}: remove the option`,
    )
  }
  // praas.h has no flags for codecs: those are said by the deployment.
  const declared = unpackTraits(found.flags & 0xff)
  const flags = packTraits({
    stream: false,
    idempotent: request.idempotent ?? declared.idempotent,
    input: request.input === undefined ? declared.input : codecByName(request.input),
    output: request.output === undefined ? declared.output : codecByName(request.output),
  })
  const maxOutputBytes = abi === 'raw' ? (request.maxOutputBytes ?? defaultMaxOutputBytes) : undefined
  const { source, path, hash } = library
  return { name, symbol, abi, flags, maxOutputBytes, library: source, path, hash }
}

/** What symbols do not tell, the deployment may: one that is no `c` function can be called in either other way. */
function abiOf(name: string, { abi, symbol, library }: Offer, wanted: NativeAbi | undefined): NativeAbi {
  if (wanted === undefined || wanted === abi) return abi
  if (abi === 'c') {
    throw failed(
      `function ${name}: abi is ${wanted}, but ${symbol} of ${library.source} is registered with PRAAS_FUNCTION; ` +
        `remove the option`,
    )
  }
  if (wanted === 'c') {
    throw failed(
      `function ${name}: abi is c, but ${symbol} of ${library.source} is not registered with PRAAS_FUNCTION of praas.h`,
    )
  }
  if (wanted === 'praas' && !library.adapter) {
    throw failed(
      `function ${name}: abi is praas, but ${library.source} was not compiled with praas' headers for PraaS functions; ` +
        `include <praas/process/runtime/context.hpp> and compile it anew`,
    )
  }
  return wanted
}

const namesInMessage = 20

function noFunction(symbol: string, libraries: readonly NativeLibrary[]): string {
  const there = libraries.map(({ source, functions }) => {
    const names = functions.slice(0, namesInMessage).map(({ name }) => name)
    const more = functions.length > names.length ? `, … (${functions.length})` : ''
    return `${basename(source)} has ${names.length === 0 ? 'none' : names.join(', ')}${more}`
  })
  return `there is no native function ${symbol}: ${there.join('; ') || 'there is no library'}. ${howExported}`
}

function noFunctions(libraries: readonly NativeLibrary[]): string {
  return `no native function is offered by ${libraries.map(({ source }) => source).join(', ')}. ${howExported}`
}

const howExported =
  'Functions are registered with PRAAS_FUNCTION of praas.h, or exported as extern "C" with default visibility.'

function failed(why: string): DeployError {
  return new DeployError('ERR_DEPLOY_FAILED', why)
}
