#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"

namespace praas::mqueue {

/// A POSIX message queue, always non-blocking underneath: on Linux its descriptor can be polled, and a blocking receive
/// with a deadline is made by the caller's choice of method. Move-only; the descriptor closes with the object, the
/// queue itself stays until Unlink. Queues lie in the IPC namespace and count against RLIMIT_MSGQUEUE with their full
/// depth even when empty.
/// @see mq_overview(7)
class MessageQueue {
 public:
  struct Limits {
    uint32_t depth = 10;  // messages; the system-wide default maximum for users is 10
    uint32_t message_bytes = 8;
  };

  /// Makes a new queue of mode 0600, replacing one of the same name (whose owner the caller knows to be dead).
  [[nodiscard]] static Result<MessageQueue> Create(const std::string& name, const Limits& limits);
  [[nodiscard]] static Result<MessageQueue> Open(const std::string& name);
  /// kOk also when there was none.
  [[nodiscard]] static Status Unlink(const std::string& name);

  MessageQueue(MessageQueue&&) noexcept = default;
  MessageQueue& operator=(MessageQueue&&) noexcept = default;

  /// false: the queue is full.
  [[nodiscard]] Result<bool> TrySend(std::span<const std::byte> message) noexcept;
  /// Bytes received, nullopt when empty. `into` holds at least message_bytes.
  [[nodiscard]] Result<std::optional<size_t>> TryReceive(std::span<std::byte> into) noexcept;
  /// Blocks until a message, `deadline_ns` (CLOCK_MONOTONIC) or a signal; nullopt for the latter two. The kernel wakes
  /// exactly one of several receivers.
  [[nodiscard]] Result<std::optional<size_t>> Receive(std::span<std::byte> into, uint64_t deadline_ns) noexcept;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }

 private:
  MessageQueue(UniqueFd fd, UniqueFd blocking) : fd_(std::move(fd)), blocking_(std::move(blocking)) {}

  // O_NONBLOCK belongs to the open file description, so waiting needs a second one.
  UniqueFd fd_;
  UniqueFd blocking_;
};

}  // namespace praas::mqueue
