#pragma once

#include <string>
#include <string_view>

#include "base/status.h"

/// Names in the state store that belong to the runtime: state and messages have separate name spaces, but lie in one
/// store. Users can neither say nor list them.
namespace praas::state {

inline constexpr char kReservedFirst = '\x01';
inline constexpr std::string_view kMailboxPrefix = "\x01mailbox/";

[[nodiscard]] constexpr bool IsReserved(std::string_view name) noexcept {
  return !name.empty() && name.front() == kReservedFirst;
}

/// kNameInvalid for what users must not name.
[[nodiscard]] inline Status CheckUserKey(std::string_view key) {
  if (!IsReserved(key)) return Status::Ok();
  return Status(Code::kNameInvalid, "state keys that begin with U+0001 belong to the runtime");
}

}  // namespace praas::state
