/** The names of praas/process/runtime/buffer.hpp as PraaS' functions know them, too: the same types. */
#ifndef PRAAS_FUNCTION_BUFFER_HPP
#define PRAAS_FUNCTION_BUFFER_HPP

#include <praas/process/runtime/buffer.hpp>

namespace praas::function {

using process::runtime::Buffer;

}  // namespace praas::function

#endif
