#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <vector>

#include "base/clock.h"
#include "client/stream.h"
#include "protocol/frame.h"

namespace praas::client {

enum class CallKind : uint8_t { kInvoke, kResolve, kRequest, kStream };

enum class CallState : uint8_t {
  kFree,
  kWaiting,    // has found no room yet
  kSettled,    // never sent, but its outcome is known: the next Poll hands it out
  kSent,       // the peer answers it
  kAbandoned,  // answered here (deadline); the peer's answer is still to come and will be dropped
};

/// One request of a connection, from its submission until the peer's answer.
struct Call {
  uint64_t id = 0;
  CallKind kind{};
  CallState state = CallState::kFree;
  bool refused = false;  // found no room at least once
  protocol::FrameType type{};
  uint16_t op = 0;
  uint32_t function = 0;
  uint32_t flags = 0;
  uint64_t deadline_ns = 0;
  std::span<const std::byte> input;
  std::span<std::byte> output;
  std::vector<std::byte> arguments;  // kResolve: the name; kRequest: what precedes the data
  std::unique_ptr<Stream> stream;

  /// Takes a lock or releases one.
  [[nodiscard]] bool OfLock() const noexcept {
    return type == protocol::FrameType::kState && (op == static_cast<uint16_t>(protocol::StateOp::kLock) ||
                                                   op == static_cast<uint16_t>(protocol::StateOp::kUnlock));
  }
};

/// Everything a connection has in flight. Ids hold slot and generation, so that neither adding nor finding allocates or
/// hashes, and an answer to an earlier user of a slot finds nothing. References stay valid until Remove.
class CallTable {
 public:
  Call& Add(CallKind kind, uint64_t deadline_ns);
  [[nodiscard]] Call* Find(uint64_t id) noexcept;
  void Remove(Call& call) noexcept;

  /// Calls that still owe their owner an answer.
  [[nodiscard]] size_t open() const noexcept { return open_; }
  void MarkAbandoned(Call& call) noexcept;

  /// No open call's deadline lies before this. A lower bound: calls that ended early leave it as it is, which costs a
  /// look at all slots when it passes, instead of a heap operation per call.
  [[nodiscard]] uint64_t earliest_deadline_ns() const noexcept { return open_ == 0 ? kNoDeadline : earliest_ns_; }
  /// Ids of open calls whose deadline has passed; moves the lower bound on.
  [[nodiscard]] std::vector<uint64_t> Expired(uint64_t now_ns);
  [[nodiscard]] std::vector<uint64_t> Open() const;

 private:
  static constexpr uint64_t kSlotBits = 20;

  std::deque<Call> slots_;
  std::vector<uint32_t> free_;
  size_t open_ = 0;
  uint64_t earliest_ns_ = kNoDeadline;
};

}  // namespace praas::client
