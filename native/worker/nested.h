#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>

#include "base/result.h"
#include "worker/core.h"
#include "worker/runtime.h"

namespace praas::worker {

/// Calls this worker makes to functions of its own process. They lie in the same call table as everybody's; this worker
/// is their origin, so it alone frees them. Owner thread only.
class NestedCalls {
 public:
  explicit NestedCalls(Core& core) : core_(core) {}

  [[nodiscard]] std::optional<uint32_t> FindFunction(std::string_view name);
  [[nodiscard]] Result<uint64_t> Post(uint32_t function, std::span<const std::byte> input, uint32_t flags,
                                      uint16_t depth, uint64_t deadline_ns);
  [[nodiscard]] std::optional<NestedReply> Next();
  void Free(uint64_t call);
  void Cancel(uint64_t call);
  [[nodiscard]] Result<NestedReply> Wait(uint64_t call, uint64_t deadline_ns);

  /// A finished call that Next would return.
  [[nodiscard]] bool HasFinished() const noexcept {
    return !finished_.empty() || (!calls_.empty() && core_.dispatcher->HasCompletion());
  }

 private:
  struct Call {
    uint32_t generation = 0;
    bool done = false;
    bool abandoned = false;  // nobody wants the reply: freed when it comes
  };
  [[nodiscard]] Status PutInput(dispatch::CallEntry& entry, uint32_t index, std::span<const std::byte> input);
  /// Notes every completion that has come.
  void Collect();
  [[nodiscard]] NestedReply Reply(uint32_t index) const;
  void FreeEntry(uint32_t index);
  [[nodiscard]] Call* Find(uint64_t call);
  /// Nobody can take the queued call `index` while this worker blocks.
  [[nodiscard]] bool Stuck(uint32_t index, uint32_t generation) const noexcept;
  void RefreshFunctions();

  Core& core_;
  std::unordered_map<uint32_t, Call> calls_;  // by entry index
  std::deque<uint32_t> finished_;             // done and not returned yet
  std::unordered_map<std::string, uint32_t> functions_;
  uint32_t known_hash_ = 0;
};

}  // namespace praas::worker
