#ifndef PRAAS_PROCESS_RUNTIME_INVOCATION_HPP
#define PRAAS_PROCESS_RUNTIME_INVOCATION_HPP

#include <praas/process/runtime/buffer.hpp>
#include <string>
#include <vector>

namespace praas::process::runtime {

/** What a function is called with. */
struct Invocation {
  /** Names this invocation; the same as Context::invocation_id(). */
  std::string key;

  std::string function_name;

  /** Exactly one: the input. Its memory is the sender's: read it in place, do not write. */
  std::vector<Buffer> args;
};

/** What a function that was called by Context::invoke() gave. */
struct InvocationResult {
  /** The `invocation_id` of the call. */
  std::string key;

  std::string function_name;

  /** 0 for success. A function that threw, or that is not of PraaS' kind and failed, has 1. */
  int return_code{};

  /** The result; after a failure the text of the error. Valid until the calling function returns. */
  Buffer payload;
};

}  // namespace praas::process::runtime

#endif
