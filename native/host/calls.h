#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dispatch/call_entry.h"
#include "host/event_loop.h"
#include "host/process.h"

namespace praas::host {

/// The host's part of the call table: entries it fills for its sessions and windows, and what has to be freed again.
/// I/O thread; nothing here waits.
class Calls {
 public:
  /// `room`: something was freed while somebody had found none.
  Calls(EventLoop& loop, Process& process, std::function<void()> room);
  ~Calls();

  struct Request {
    uint32_t function = 0;
    uint16_t flags = 0;  // dispatch::CallFlags
    bool stream = false;
    uint32_t session = 0;
    uint64_t call = 0;  // the session's id of it
    uint64_t deadline_ns = 0;
    uint64_t input_bytes = 0;
  };
  struct Begun {
    uint32_t index;
    std::span<std::byte> input;  // to be filled before Post
  };
  /// A reserved entry with memory for its input. nullopt: none now, `room` follows. kPayloadTooLarge: there never will
  /// be.
  [[nodiscard]] std::optional<Result<Begun>> TryBegin(const Request& request);
  void Post(uint32_t index);
  /// Gives up a begun call.
  void Drop(uint32_t index);

  /// An entry for a submission of a window, reserved. nullopt: none now, `room` follows.
  [[nodiscard]] std::optional<uint32_t> TryReserve();

  struct Outcome {
    Code code;
    std::span<const std::byte> payload;
  };
  /// Result of a finished call, where it lies; kInternal when its worker named memory that is not the pool's.
  [[nodiscard]] Outcome OutcomeOf(uint32_t index) const;
  /// Frees a finished, parked or given-up entry and its blocks.
  void Free(uint32_t index);

  /// What an entry says while others may be changing it: whole, or nothing.
  struct View {
    dispatch::CallWord word;
    dispatch::Origin origin;
    dispatch::CallKind kind;
    uint16_t origin_index;
    uint32_t connection_index;
    uint64_t origin_call;
    uint64_t deadline_ns;
    uint64_t queued_ns;

    [[nodiscard]] bool running() const noexcept {
      return word.state == dispatch::CallState::kQueued || word.state == dispatch::CallState::kClaimed;
    }
  };
  /// nullopt: free, being filled, or it changed meanwhile.
  [[nodiscard]] std::optional<View> Look(uint32_t index) const noexcept;

  [[nodiscard]] uint32_t generation(uint32_t index) const noexcept;
  [[nodiscard]] dispatch::CallEntry& entry(uint32_t index) const noexcept { return process_.segment->call(index); }
  [[nodiscard]] dispatch::CallWord word(uint32_t index) const noexcept;
  [[nodiscard]] uint32_t capacity() const noexcept { return capacity_; }
  /// Whether an entry was taken since this was asked last.
  [[nodiscard]] bool TakeActivity() noexcept { return std::exchange(activity_, false); }

 private:
  struct Posted {
    uint32_t index, generation;
    uint64_t at_ns;
  };

  [[nodiscard]] bool FreeBlocks(dispatch::CallEntry& entry);
  void CheckPosted();
  void ArmRetry();

  EventLoop& loop_;
  Process& process_;
  std::function<void()> room_;
  const uint32_t capacity_;
  bool activity_ = false;
  bool wanted_ = false;  // somebody found no room
  std::vector<Posted> posted_;
  EventLoop::TimerId posted_timer_{};
  std::vector<uint32_t> freeing_;  // their blocks' arena was in use
  EventLoop::TimerId retry_timer_{};
};

}  // namespace praas::host
