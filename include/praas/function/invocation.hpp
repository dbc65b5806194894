/** The names of praas/process/runtime/invocation.hpp as PraaS' functions know them, too: the same types. */
#ifndef PRAAS_FUNCTION_INVOCATION_HPP
#define PRAAS_FUNCTION_INVOCATION_HPP

#include <praas/process/runtime/invocation.hpp>

namespace praas::function {

using process::runtime::Buffer;
using process::runtime::Invocation;
using process::runtime::InvocationResult;

}  // namespace praas::function

#endif
