/** The names of praas/process/runtime/context.hpp as PraaS' functions know them, too: the same types. */
#ifndef PRAAS_FUNCTION_CONTEXT_HPP
#define PRAAS_FUNCTION_CONTEXT_HPP

#include <praas/process/runtime/context.hpp>

namespace praas::function {

using process::runtime::Buffer;
using process::runtime::Context;
using process::runtime::Invocation;
using process::runtime::InvocationResult;

}  // namespace praas::function

#endif
