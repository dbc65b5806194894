#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace praas::function {

/// How a function is called.
enum class Abi {
  kC,        // int f(praas_context*), registered by PRAAS_FUNCTION
  kRaw,      // uint32_t f(void* args, uint32_t size, void* res), as in rFaaS
  kAdapter,  // through the library's praas_adapter_v1
};

/// One function of the application, as the agent has resolved it at deploy.
struct FunctionSpec {
  std::string name;    // 1 … 255 bytes; what callers say
  std::string symbol;  // in the library
  std::string path;    // of the library, absolute
  Abi abi = Abi::kC;
  uint64_t max_output_bytes = 0;  // kRaw: how much its result area holds
  uint32_t flags = 0;             // segment::FunctionFlags
};

/// The text of kLoad for native workers: lines `function name=… symbol=… library=… abi=raw|c|adapter maxOutput=…
/// flags=…` in the agent's line format. kArgumentInvalid names the line and what is wrong with it; no function at all
/// is wrong.
[[nodiscard]] Result<std::vector<FunctionSpec>> ParseLoadText(std::string_view text);

[[nodiscard]] std::string_view AbiName(Abi abi) noexcept;

}  // namespace praas::function
