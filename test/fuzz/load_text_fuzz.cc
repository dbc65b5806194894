// What native workers are told to load.

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "function/spec.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)praas::function::ParseLoadText({reinterpret_cast<const char*>(data), size});
  return 0;
}
