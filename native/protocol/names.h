#pragma once

#include <string_view>

#include "base/result.h"

namespace praas::protocol {

[[nodiscard]] bool IsUtf8(std::string_view text) noexcept;

/// 1 … kMaxName bytes of UTF-8 without NUL: process ids, function names, state keys and lock names. `what` begins the
/// message ("function name"). kNameInvalid.
[[nodiscard]] Status ValidateName(std::string_view name, std::string_view what);

}  // namespace praas::protocol
