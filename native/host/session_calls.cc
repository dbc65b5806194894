// A session's invocations: from a frame to an entry of the call table, and from a finished entry to a reply.

#include <algorithm>
#include <utility>

#include "base/clock.h"
#include "host/session.h"
#include "protocol/token.h"

namespace praas::host {

using dispatch::CallEntry;
using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

uint64_t Session::DeadlineOf(const Frame& frame) const {
  if (frame.deadline_us == 0) return DeadlineIn(services_.process.assignment.timeout_ms * 1'000'000);
  // A year is for ever and keeps the sums below 2^64.
  constexpr uint64_t kLongestUs = 365ull * 24 * 3600 * 1'000'000;
  return DeadlineIn(std::min(frame.deadline_us, kLongestUs) * 1000);
}

Status Session::CheckCall(const Frame& frame) const {
  if (Status permitted = Permits(protocol::kVerbInvoke); !permitted.ok()) return permitted;
  if (Status refused = services_.refuses(); !refused.ok()) return refused;
  if (frame.function >= services_.functions.count()) {
    return Status(Code::kFunctionUnknown,
                  "no function has index " + std::to_string(frame.function) + "; resolve its name first");
  }
  const bool takes_stream = (services_.functions.flags(frame.function) & segment::kFunctionStream) != 0;
  const bool stream = (frame.flags & protocol::kStream) != 0;
  if (takes_stream == stream) return Status::Ok();
  return Status(Code::kArgumentInvalid, stream ? "the function takes one payload, not a stream"
                                               : "the function takes a stream; open one instead of calling it");
}

Result<Placement> Session::OnCallHeader(const Frame& frame) {
  const uint64_t deadline_ns = waiting_deadline_ ? *waiting_deadline_ : DeadlineOf(frame);
  Status refused = CheckCall(frame);
  if (refused.ok()) {
    const bool stream = (frame.flags & protocol::kStream) != 0;
    std::optional<Result<Calls::Begun>> begun =
        stream && !streams_.HasRoom()
            ? std::nullopt
            : services_.calls.TryBegin(
                  {.function = frame.function,
                   .flags = static_cast<uint16_t>(
                       ((frame.flags & protocol::kIdempotent) != 0 ? dispatch::kCallIdempotent : 0) |
                       ((frame.flags & protocol::kSync) != 0 ? dispatch::kCallSync : 0)),
                   .stream = stream,
                   .session = slot_,
                   .call = frame.call,
                   .deadline_ns = deadline_ns,
                   .input_bytes = frame.payload_bytes});
    if (!begun && NowNs() < deadline_ns) {
      waiting_deadline_ = deadline_ns;
      services_.paused(*this);
      return Placement::NotNow();
    }
    if (begun && begun->ok()) {
      if (!(stream && has_window_) && !std::exchange(calls_, true)) ++services_.callers;
      waiting_deadline_.reset();
      receiving_ = (*begun)->index;
      receiving_call_ = frame.call;
      ++in_flight_;
      return Placement::Into((*begun)->input);
    }
    refused = begun ? begun->status()
                    : Status(Code::kBackpressure, "the process had no room for the call until its deadline");
  }
  waiting_deadline_.reset();
  Reply({.type = FrameType::kReply, .call = frame.call}, refused);
  return Placement::Discard();
}

void Session::PostReceived() {
  if (!receiving_) return;
  const uint32_t index = *receiving_;
  receiving_.reset();
  CallEntry& entry = services_.calls.entry(index);
  if (entry.kind == dispatch::CallKind::kStream && !streams_.Open(index, entry.origin_call)) {
    FreeCall(index);
    Reply({.type = FrameType::kReply, .call = receiving_call_},
          Status(Code::kBackpressure, "the process has no room for another stream"));
    return;
  }
  services_.calls.Post(index);
}

void Session::DropReceived() {
  (void)TakeReceivedState();
  if (!receiving_) return;
  FreeCall(*receiving_);
  receiving_.reset();
}

void Session::FreeCall(uint32_t index) {
  --in_flight_;
  services_.calls.Free(index);
}

void Session::Completed(uint32_t index) {
  if (services_.calls.entry(index).kind == dispatch::CallKind::kStream && streams_.Completed(index)) return;
  if (phase_ != Phase::kOpen) return FreeCall(index);
  AnswerCall(index);
}

void Session::AnswerCall(uint32_t index) {
  const Calls::Outcome outcome = services_.calls.OutcomeOf(index);
  Frame frame{.type = FrameType::kReply, .call = services_.calls.entry(index).origin_call};
  const uint64_t limit = services_.process.assignment.max_contiguous;
  if (outcome.code == Code::kOk && outcome.payload.size() <= limit) {
    // Small results are copied next to their header and free the entry at once; larger ones are sent from where they
    // lie.
    writer_.Push(frame, outcome.payload, [this, index](const Status&) { FreeCall(index); });
    Wrote();
    return;
  }
  if (outcome.code == Code::kOk) {
    Reply(frame, Status(Code::kPayloadTooLarge, "the result has " + std::to_string(outcome.payload.size()) +
                                                    " bytes; at most " + std::to_string(limit) + " are possible"));
  } else {
    const auto* text = reinterpret_cast<const char*>(outcome.payload.data());
    const size_t bytes = std::min(outcome.payload.size(), protocol::kMaxErrorMessage);
    Reply(frame, Status(outcome.code, std::string(text, bytes)));
  }
  FreeCall(index);
}

void Session::Cancel(uint64_t call) {
  streams_.Cancelled(call);
  for (uint32_t index = 0; index < services_.calls.capacity(); ++index) {
    const std::optional<Calls::View> view = services_.calls.Look(index);
    if (!view || !Mine(*view) || view->origin_call != call) continue;
    if (services_.process.dispatcher->Cancel(index, view->word.generation, Code::kInvocationCancelled))
      Completed(index);
    return;
  }
  if (lock_requests_ > 0) services_.state.Cancel(id_, call);  // a lock it waits for, perhaps
  services_.leases.Cancel(id_, call);
}

void Session::CancelAll() {
  if (in_flight_ == 0) return;
  for (uint32_t index = 0; index < services_.calls.capacity(); ++index) {
    const std::optional<Calls::View> view = services_.calls.Look(index);
    if (!view || !Mine(*view)) continue;
    if (services_.process.dispatcher->Cancel(index, view->word.generation, Code::kInvocationCancelled))
      Completed(index);
  }
}

bool Session::Mine(const Calls::View& view) const noexcept {
  return view.running() && view.origin == dispatch::Origin::kHost && view.connection_index == slot_;
}

}  // namespace praas::host
