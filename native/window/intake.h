#pragma once

#include <atomic>
#include <cstdint>
#include <string_view>

#include "base/clock.h"
#include "dispatch/call_entry.h"
#include "window/server_window.h"

/// How a submission becomes a call entry: the same for every consumer of a submission ring, host or worker.
namespace praas::window {

[[nodiscard]] constexpr uint64_t OriginCall(uint32_t call, uint32_t sequence) noexcept {
  return static_cast<uint64_t>(sequence) << 32 | call;
}
[[nodiscard]] constexpr uint32_t OriginCallIndex(uint64_t origin_call) noexcept {
  return static_cast<uint32_t>(origin_call);
}
[[nodiscard]] constexpr uint32_t OriginSequence(uint64_t origin_call) noexcept {
  return static_cast<uint32_t>(origin_call >> 32);
}

/// How often a consumer looks at a ring again that was filled meanwhile, before it does something else: a client that
/// submits as fast as it consumes must not keep it from the others.
inline constexpr uint32_t kConsumeRounds = 4;

/// What a call that cannot be served is answered: the client should have known.
inline constexpr std::string_view kInputTooLarge =
    "the input is larger than the process takes as one payload; stream it";
inline constexpr std::string_view kTakesStream = "the function takes a stream; open one instead of calling it";

/// Fills an entry the caller has reserved. `input` names the request in the client's window; until a worker completes
/// the call, `output` names the room the client offered for the result.
inline void FillEntry(dispatch::CallEntry& entry, const Submission& submission, uint32_t window,
                      uint64_t now_ns) noexcept {
  using dispatch::Place;
  const bool empty = submission.input_bytes == 0;
  entry.function = submission.function;
  entry.origin_index = static_cast<uint16_t>(window);
  entry.origin = dispatch::Origin::kWindow;
  entry.kind = dispatch::CallKind::kInvoke;
  entry.origin_call = OriginCall(submission.call, submission.sequence);
  entry.deadline_ns = submission.deadline_ns;
  entry.input = {submission.input_offset, submission.input_bytes, 0, empty ? Place::kNone : Place::kWindow, {}};
  entry.output = {submission.output_offset, submission.output_capacity, 0, Place::kWindow, {}};
  entry.flags = static_cast<uint16_t>(submission.flags);
  entry.depth = 0;
  entry.cancel.store(0, std::memory_order_relaxed);
  entry.status = 0;
  entry.connection_index = 0;
  entry.claimed_ns = 0;
  entry.queued_ns = now_ns;
  entry.stream = 0;
  entry.deaths = 0;
}

/// Whether the entry that a submission's consumer has noted, and which is in this state, was made of it. One that is
/// parked was made, and has run; room is given to it while it is parked.
[[nodiscard]] inline bool IsMade(dispatch::CallState noted, const Submission& submission) noexcept {
  return noted != dispatch::CallState::kFree && !(submission.room_given && noted == dispatch::CallState::kParked);
}

/// The room for the result that the entry of an unanswered window call names.
[[nodiscard]] inline ServerWindow::Room RoomOf(const dispatch::CallEntry& entry) noexcept {
  if (entry.output.place != dispatch::Place::kWindow) return {};
  return {entry.output.offset, entry.output.bytes};
}

/// For a submission with `room_given`, after Dispatcher::Unpark took the parked entry: makes it a delivery. `output`
/// stays the pool block with the result or error, `status` says which, `input` becomes the room the client now offers.
inline void FillDelivery(dispatch::CallEntry& entry, const Submission& submission) noexcept {
  entry.kind = dispatch::CallKind::kDeliver;
  entry.input = {submission.output_offset, submission.output_capacity, 0, dispatch::Place::kWindow, {}};
  entry.queued_ns = NowNs();
}

}  // namespace praas::window
