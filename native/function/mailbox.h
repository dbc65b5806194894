#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "state/state_store.h"

namespace praas::function {

/// Messages of a process to itself: first in, first out for each key, taken once, shared by all its workers and kept
/// like state. They lie in a name space of the state store that its users cannot see (state/reserved.h).
class Mailbox {
 public:
  /// What may wait under one key; then kBackpressure.
  static constexpr uint64_t kMaxBytes = 64u << 20;

  explicit Mailbox(state::StateStore& store) : store_(store) {}

  [[nodiscard]] Status Put(std::string_view key, std::span<const std::byte> message, uint64_t deadline_ns);
  /// The oldest message; nullopt when there is none now.
  [[nodiscard]] Result<std::optional<std::vector<std::byte>>> TryTake(std::string_view key, uint64_t deadline_ns);

 private:
  state::StateStore& store_;
};

}  // namespace praas::function
