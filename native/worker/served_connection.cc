#include "worker/served_connection.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "protocol/messages.h"
#include "protocol/names.h"
#include "transport/tcp.h"
#include "window/layout.h"

namespace praas::worker {

using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

namespace {

/// Answers a client may leave unread before its calls wait.
constexpr uint64_t kMaxQueuedBytes = 4u << 20;

Status NotHere() {
  return Status(Code::kUnsupported, "a leased worker takes calls; ask the process's own connection for all else");
}

}  // namespace

Result<std::unique_ptr<ServedConnection>> ServedConnection::Make(UniqueFd socket, uint32_t window,
                                                                 window::Handover handover,
                                                                 const segment::Segment& segment,
                                                                 const Limits& limits) {
  Result<std::unique_ptr<transport::TcpStream>> stream = transport::TcpStream::Adopt(std::move(socket));
  if (!stream.ok()) return stream.status();
  std::unique_ptr<ServedConnection> connection(new ServedConnection(*std::move(stream), window, segment, limits));
  Result<std::unique_ptr<transport::ShmTransport>> calls =
      transport::ShmTransport::Create(std::move(handover), limits.default_timeout_ns);
  if (!calls.ok()) return calls.status();
  connection->calls_ = *std::move(calls);
  const uint32_t functions = segment.header().function_count.load(std::memory_order_acquire);
  for (uint32_t index = 0; index < functions; ++index) {
    const uint32_t pages = segment.function(index).max_output_pages;
    if (pages > 0) connection->calls_->ExpectResults(index, pages);
  }
  connection->writer_.PushCopy({.type = FrameType::kUpgradeOffer},
                               protocol::Encode(protocol::UpgradeOffer{.worker = true}));
  connection->Flush();
  return connection;
}

ServedConnection::ServedConnection(std::unique_ptr<transport::ByteStream> stream, uint32_t window,
                                   const segment::Segment& segment, const Limits& limits)
    : stream_(std::move(stream)),
      window_(window),
      segment_(segment),
      limits_(limits),
      reader_(limits.max_contiguous),
      on_reply_([this](const transport::Reply& reply) { OnReply(reply); }) {
  writer_.set_checksum(limits.checksum);
}

ServedConnection::~ServedConnection() {
  End(Status(Code::kConnectionClosed, "the worker ends"));
  calls_->Close();
}

// -------------------------------------------------------------------------------------------------------------------
// progress

bool ServedConnection::Poll() {
  if (!ended_.ok()) return false;
  bool progress = Deliver();
  if (!ended_.ok()) return true;
  if (paused_ && !progress) return false;
  const uint64_t frames = reader_.frames();
  const Result<protocol::FrameReader::State> state = reader_.Read(*stream_, *this);
  if (!state.ok()) {
    // Somebody who speaks something else gets told once.
    const Code code = state.status().code();
    if (code != Code::kConnectionLost && code != Code::kConnectionClosed) Goodbye(state.status());
    End(state.status());
    return true;
  }
  paused_ = *state == protocol::FrameReader::State::kPaused;
  more_ = *state == protocol::FrameReader::State::kMore;
  progress |= reader_.frames() != frames || more_;
  if (!writer_.empty()) Flush();
  return progress;
}

bool ServedConnection::Deliver() {
  if (!ended_.ok()) return false;
  const bool progress = in_flight_ > 0 && calls_->Poll(on_reply_) > 0;
  if (!writer_.empty()) Flush();
  return progress;
}

bool ServedConnection::Flush() {
  const Result<bool> sent = writer_.Flush(*stream_);
  if (!sent.ok()) End(sent.status());
  return sent.ok() && *sent;
}

void ServedConnection::Goodbye(const Status& why) {
  if (!ended_.ok()) return;
  writer_.PushCopy({.type = FrameType::kGoodbye},
                   protocol::Encode(protocol::Reject{.code = why.code(), .message = why.message()}));
  Flush();
}

void ServedConnection::End(Status why) {
  if (!ended_.ok()) return;
  ended_ = std::move(why);
  writer_.Abort(ended_);
  stream_->Close();
  if (calls_ == nullptr) return;
  if (receiving_) calls_->Release(*std::exchange(receiving_, std::nullopt));
  CancelAll();
}

void ServedConnection::CancelAll() { calls_->CancelAll(); }

bool ServedConnection::PrepareToSleep() { return !ended_.ok() || (!more_ && calls_->PrepareToSleep()); }

// -------------------------------------------------------------------------------------------------------------------
// frames

Result<Placement> ServedConnection::OnHeader(const Frame& frame) {
  switch (frame.type) {
    case FrameType::kCall:
      return OnCallHeader(frame);
    case FrameType::kResolve:
    case FrameType::kUpgrade:
    case FrameType::kCancel:
    case FrameType::kPing:
    case FrameType::kPong:
    case FrameType::kGoodbye:
      return Placement::Scratch();
    case FrameType::kState:
      ReplyError(FrameType::kStateReply, frame.call, NotHere());
      return Placement::Discard();
    case FrameType::kAdmin:
      ReplyError(FrameType::kAdminReply, frame.call, NotHere());
      return Placement::Discard();
    case FrameType::kLease:
      ReplyError(FrameType::kLeaseReply, frame.call, NotHere());
      return Placement::Discard();
    case FrameType::kData:
    case FrameType::kCredit:
      return Placement::Discard();  // of a stream that was refused
    default:
      return Status(Code::kProtocolInvalid,
                    "frame type " + std::to_string(static_cast<unsigned>(frame.type)) + " does not come from a client");
  }
}

Result<Placement> ServedConnection::OnCallHeader(const Frame& frame) {
  if ((frame.flags & protocol::kStream) != 0) {
    ReplyError(FrameType::kReply, frame.call, NotHere());
    return Placement::Discard();
  }
  if (in_flight_ >= window::kCalls || writer_.queued_bytes() > kMaxQueuedBytes) return Placement::NotNow();
  if (frame.payload_bytes < protocol::kDirectBytes) return Placement::Scratch();
  const Result<transport::Buffer> block = calls_->Allocate(frame.payload_bytes);
  if (block.ok()) {
    receiving_ = *block;
    return Placement::Into({block->data, block->bytes});
  }
  if (block.status().code() == Code::kBackpressure && in_flight_ > 0) return Placement::NotNow();
  ReplyError(FrameType::kReply, frame.call, block.status());
  return Placement::Discard();
}

Status ServedConnection::OnFrame(const Frame& frame, std::span<std::byte> payload) {
  switch (frame.type) {
    case FrameType::kCall:
      return OnCall(frame, payload);
    case FrameType::kResolve:
      OnResolve(frame, payload);
      return Status::Ok();
    case FrameType::kUpgrade:
      writer_.PushCopy({.type = FrameType::kUpgradeOffer},
                       protocol::Encode(protocol::UpgradeOffer{
                           .refused = protocol::Reject{.code = Code::kUpgradeFailed,
                                                       .message = "this worker serves its clients over TCP"}}));
      return Status::Ok();
    case FrameType::kCancel:
      calls_->Cancel(frame.call);
      return Status::Ok();
    case FrameType::kPing:
      writer_.Push({.type = FrameType::kPong, .aux = frame.aux});
      return Status::Ok();
    case FrameType::kGoodbye:
      return Status(Code::kConnectionClosed, "the client has said goodbye");
    default:
      return Status::Ok();
  }
}

Status ServedConnection::OnCorrupt(const Frame& frame) {
  const Status status(Code::kPayloadCorrupt, "the payload does not match its checksum");
  if (frame.type != FrameType::kCall) return status;  // without this frame the rest makes no sense
  if (receiving_) calls_->Release(*std::exchange(receiving_, std::nullopt));
  ReplyError(FrameType::kReply, frame.call, status);
  return Status::Ok();
}

Status ServedConnection::OnCall(const Frame& frame, std::span<std::byte> input) {
  const std::optional<transport::Buffer> block = std::exchange(receiving_, std::nullopt);
  constexpr uint64_t kLongestUs = 365ull * 24 * 3600 * 1'000'000;  // keeps the sums below 2^64
  const uint64_t timeout_ns =
      frame.deadline_us == 0 ? limits_.default_timeout_ns : std::min(frame.deadline_us, kLongestUs) * 1000;
  const Result<bool> taken = calls_->Submit({.call = frame.call,
                                             .function = frame.function,
                                             .flags = uint32_t{frame.flags} & (protocol::kIdempotent | protocol::kSync),
                                             .deadline_ns = DeadlineIn(timeout_ns),
                                             .input = input,
                                             .output = {}});
  if (!taken.ok() || !*taken) {
    if (block) calls_->Release(*block);
    ReplyError(FrameType::kReply, frame.call,
               taken.ok() ? Status(Code::kBackpressure, "this worker has no room for the call") : taken.status());
    return Status::Ok();
  }
  ++in_flight_;
  if (block) inputs_.emplace(frame.call, *block);
  return Status::Ok();
}

void ServedConnection::OnResolve(const Frame& frame, std::span<const std::byte> bytes) {
  const std::string_view name(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  const uint32_t functions = segment_.header().function_count.load(std::memory_order_acquire);
  for (uint32_t index = 0; index < functions; ++index) {
    const segment::Function& function = segment_.function(index);
    if (std::string_view(function.name.bytes, function.name.size) != name) continue;
    Frame resolved{.type = FrameType::kResolved, .call = frame.call};
    resolved.function = index;
    resolved.aux = uint64_t{function.max_output_pages} << 32 | function.flags;
    return writer_.Push(resolved);
  }
  ReplyError(FrameType::kResolved, frame.call,
             Status(Code::kFunctionUnknown, "the application has no function \"" + std::string(name) + '"'));
}

// -------------------------------------------------------------------------------------------------------------------
// answers

void ServedConnection::OnReply(const transport::Reply& reply) {
  --in_flight_;
  if (!ended_.ok()) return DropInput(reply.call);
  if (!reply.status.ok()) {
    DropInput(reply.call);
    return ReplyError(FrameType::kReply, reply.call, reply.status);
  }
  const Frame frame{.type = FrameType::kReply, .call = reply.call};
  if (reply.payload.size() < protocol::kDirectBytes) {
    writer_.PushCopy(frame, reply.payload);
  } else if (const Result<uint64_t> block = calls_->Pin(reply.payload); block.ok()) {
    writer_.Push(frame, reply.payload, [this, pinned = *block](const Status&) { calls_->Unpin(pinned); });
  } else {
    writer_.PushCopy(frame, reply.payload);
  }
  DropInput(reply.call);
}

void ServedConnection::DropInput(uint64_t call) {
  if (inputs_.empty()) return;
  const auto found = inputs_.find(call);
  if (found == inputs_.end()) return;
  calls_->Release(found->second);
  inputs_.erase(found);
}

void ServedConnection::ReplyError(FrameType type, uint64_t call, const Status& status) {
  Frame frame{.type = type, .call = call};
  const std::span<const std::byte> message = protocol::SetError(frame, status);
  writer_.PushCopy(frame, message);
}

}  // namespace praas::worker
