// Connection: from a request of the owner to a frame or a submission.

#include <algorithm>
#include <string>
#include <utility>

#include "base/clock.h"
#include "client/connection.h"
#include "protocol/messages.h"
#include "protocol/names.h"

namespace praas::client {

using protocol::Frame;
using protocol::FrameType;

Status Connection::CheckOpen() const {
  if (closed_) return Status(Code::kConnectionClosed, "the connection is closed");
  return wire_->lost();
}

uint64_t Connection::DeadlineOf(uint64_t deadline_ns) const noexcept {
  return deadline_ns != 0 && deadline_ns != kNoDeadline ? deadline_ns : DeadlineIn(info_.default_timeout_ns);
}

Result<uint64_t> Connection::Resolve(std::string_view function, uint64_t deadline_ns) {
  if (Status open = CheckOpen(); !open.ok()) return open;
  if (Status named = protocol::ValidateName(function, "function name"); !named.ok()) return named;
  Call& call = calls_.Add(CallKind::kResolve, DeadlineOf(deadline_ns));
  call.type = FrameType::kResolve;
  const auto bytes = std::as_bytes(std::span(function));
  call.arguments.assign(bytes.begin(), bytes.end());
  return Enqueue(call);
}

Result<uint64_t> Connection::Invoke(uint32_t function, std::span<const std::byte> input, std::span<std::byte> output,
                                    uint32_t flags, uint64_t deadline_ns) {
  if (Status open = CheckOpen(); !open.ok()) return open;
  if (input.size() > info_.max_contiguous) {
    return Status(Code::kPayloadTooLarge, "the input has " + std::to_string(input.size()) +
                                              " bytes; this process takes at most " +
                                              std::to_string(info_.max_contiguous));
  }
  Call& call = calls_.Add(CallKind::kInvoke, DeadlineOf(deadline_ns));
  call.type = FrameType::kCall;
  call.function = function;
  call.flags = flags & (protocol::kIdempotent | protocol::kSync);
  call.input = input;
  call.output = output;
  return Enqueue(call);
}

bool Connection::ReadsInput(uint64_t id) noexcept {
  const Call* call = calls_.Find(id);
  return call != nullptr && !call->input.empty();
}

Result<uint64_t> Connection::Request(FrameType type, uint16_t op, std::span<const std::byte> arguments,
                                     std::span<const std::byte> data, uint64_t deadline_ns) {
  if (Status open = CheckOpen(); !open.ok()) return open;
  if (type != FrameType::kState && type != FrameType::kAdmin && type != FrameType::kLease) {
    return Status(Code::kArgumentInvalid, "frame type " + std::to_string(static_cast<int>(type)) + " is no request");
  }
  const uint64_t most = type == FrameType::kState ? info_.max_contiguous : 0;
  if (data.size() > most || arguments.size() > protocol::kMaxControlPayload) {
    return Status(Code::kPayloadTooLarge, "the request has " + std::to_string(data.size()) + " bytes of data and " +
                                              std::to_string(arguments.size()) + " of arguments; at most " +
                                              std::to_string(most) + " and " +
                                              std::to_string(protocol::kMaxControlPayload) + " are possible");
  }
  Call& call = calls_.Add(CallKind::kRequest, DeadlineOf(deadline_ns));
  call.type = type;
  call.op = op;
  call.arguments.assign(arguments.begin(), arguments.end());
  call.input = data;
  return Enqueue(call);
}

Result<uint64_t> Connection::OpenStream(uint32_t function, uint32_t flags, uint64_t deadline_ns) {
  if (Status open = CheckOpen(); !open.ok()) return open;
  Call& call = calls_.Add(CallKind::kStream, DeadlineOf(deadline_ns));
  call.type = FrameType::kCall;
  call.function = function;
  call.flags = (flags & protocol::kIdempotent) | protocol::kStream;
  call.stream = std::make_unique<Stream>(stream_credit_);
  return Enqueue(call);
}

Result<size_t> Connection::SendChunk(uint64_t id, std::span<const std::byte> bytes, bool last) {
  if (Status open = CheckOpen(); !open.ok()) return open;
  Call* call = calls_.Find(id);
  if (call == nullptr || call->state == CallState::kAbandoned || !call->stream) {
    return Status(Code::kStreamAborted, "the stream has ended");
  }
  if (call->stream->send_ended()) return Status(Code::kArgumentInvalid, "a chunk after the last one");
  if (call->state != CallState::kSent) return size_t{0};
  size_t taken = 0;
  const size_t total = static_cast<size_t>(std::min<uint64_t>(bytes.size(), call->stream->room()));
  const bool ends = last && total == bytes.size();
  do {
    const size_t size = static_cast<size_t>(std::min<uint64_t>(total - taken, protocol::kMaxChunkBytes));
    const bool is_last = ends && taken + size == total;
    if (size == 0 && !is_last) break;
    Frame frame;
    frame.type = FrameType::kData;
    frame.flags = is_last ? static_cast<uint16_t>(protocol::kLast) : uint16_t{0};
    frame.call = id;
    frame.aux = call->stream->Send(size, is_last);
    wire_->writer().Push(frame, bytes.subspan(taken, size));
    taken += size;
  } while (taken < total);
  // What the socket takes at once need not be copied; the rest must, because the caller gets its memory back now.
  wire_->Flush();
  wire_->writer().Detach(FrameType::kData, id);
  return taken;
}

void Connection::ConsumedChunk(uint64_t id, uint64_t bytes) {
  Call* call = calls_.Find(id);
  if (!CheckOpen().ok() || call == nullptr || call->state != CallState::kSent || !call->stream) return;
  const uint64_t credit = call->stream->Consumed(bytes);
  if (credit == 0) return;
  Frame frame;
  frame.type = FrameType::kCredit;
  frame.call = id;
  frame.aux = credit;
  wire_->writer().Push(frame);
}

void Connection::Cancel(uint64_t id) {
  Call* call = calls_.Find(id);
  if (!CheckOpen().ok() || call == nullptr || call->state == CallState::kAbandoned) return;
  if (call->state == CallState::kWaiting) {
    Settle(*call, Status(Code::kInvocationCancelled, "cancelled before it was sent"));
  } else if (call->kind == CallKind::kInvoke && direct_) {
    direct_->Cancel(id);
  } else {
    SendCancel(id);
  }
}

void Connection::SendCancel(uint64_t id) {
  Frame frame;
  frame.type = FrameType::kCancel;
  frame.call = id;
  wire_->writer().Push(frame);
}

uint64_t Connection::Enqueue(Call& call) {
  if (HasPassed(call.deadline_ns)) {
    // Not sent at all: a fast answer must not make a late call succeed.
    Settle(call, Status(Code::kInvocationTimeout, "the deadline had passed when the call was made"));
    return call.id;
  }
  std::deque<uint64_t>& queue = call.kind == CallKind::kInvoke ? waiting_calls_ : waiting_requests_;
  // Neither a lock nor its release stands behind what waits for room: that may be waiting for it.
  const bool at_once = queue.empty() || call.OfLock();
  if (!at_once || !Send(call)) queue.push_back(call.id);
  return call.id;
}

/// false: no room now. Anything else decides the call: sent, or settled with the reason why it cannot be.
bool Connection::Send(Call& call) {
  Result<bool> sent = call.kind == CallKind::kInvoke ? TrySubmit(call) : Result<bool>(TryRequest(call));
  if (!sent.ok()) {
    Settle(call, sent.status());
  } else if (!*sent) {
    call.refused = true;
    return false;
  } else {
    call.state = CallState::kSent;
    if (call.stream) room_news_.push_back(call.id);
  }
  return true;
}

/// Sends from the front until something finds no room; order is kept.
void Connection::Drain(std::deque<uint64_t>& queue) {
  while (!queue.empty()) {
    Call* call = calls_.Find(queue.front());
    const bool waiting = call != nullptr && call->state == CallState::kWaiting && !HasPassed(call->deadline_ns);
    if (waiting && !Send(*call)) return;
    queue.pop_front();
  }
}

bool Connection::TryRequest(Call& call) {
  if (!call.OfLock() && !HasRoom()) return false;
  SendRequest(call);
  return true;
}

/// Locks are not counted: they wait for what comes after them. The host says when there are too many.
bool Connection::HasRoom() const noexcept {
  return requests_in_flight_ - locks_in_flight_ + wire_->in_flight() < info_.max_in_flight;
}

Result<bool> Connection::TrySubmit(Call& call) {
  if (!direct_ && !HasRoom()) return false;
  transport::Request request;
  request.call = call.id;
  request.function = call.function;
  request.flags = call.flags;
  request.deadline_ns = call.deadline_ns;
  request.input = call.input;
  request.output = call.output;
  if (!direct_) return wire_->Submit(request);
  Result<bool> submitted = direct_->Submit(request);
  // By the next Poll it goes over the socket.
  if (!submitted.ok() && !direct_->broken().ok()) return false;
  if (submitted.ok() && *submitted && direct_->Copies(request)) call.input = {};
  return submitted;
}

void Connection::SendRequest(Call& call) {
  ++requests_in_flight_;
  if (call.OfLock()) ++locks_in_flight_;
  Frame frame;
  frame.type = call.type;
  frame.flags = static_cast<uint16_t>(call.flags);
  frame.code = call.op;
  frame.call = call.id;
  frame.function = call.function;
  frame.deadline_us = transport::RemainingUs(call.deadline_ns);
  wire_->writer().Push(frame, call.input, {}, call.arguments);
}

void Connection::CountAnswer(const Call& call) noexcept {
  --requests_in_flight_;
  if (call.OfLock()) --locks_in_flight_;
}

}  // namespace praas::client
