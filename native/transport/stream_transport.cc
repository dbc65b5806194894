#include "transport/stream_transport.h"

#include <new>
#include <string>
#include <utility>

#include "base/clock.h"
#include "protocol/messages.h"

namespace praas::transport {

using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

namespace {

Status ClosedStatus() { return Status(Code::kConnectionClosed, "the connection is closed"); }

/// An orderly or reset end of the stream means that the process at the other end is gone; a timeout or a network error
/// only that it cannot be reached.
Status PeerGone(const Status& cause, Code gone) {
  if (cause.code() != Code::kConnectionLost) return cause;
  switch (cause.sys_errno()) {
    case 0:
    case ECONNRESET:
    case EPIPE:
      return Status(gone,
                    std::string(gone == Code::kHostLost ? "the process host" : "the leased worker") +
                        " is gone: " + cause.message(),
                    cause.sys_errno());
    default:
      return cause;
  }
}

}  // namespace

uint64_t RemainingUs(uint64_t deadline_ns) noexcept {
  const uint64_t now = NowNs();
  if (deadline_ns <= now) return 1;
  return (deadline_ns - now - 1) / 1000 + 1;
}

StreamTransport::StreamTransport(const char* name, std::unique_ptr<ByteStream> stream)
    : name_(name), stream_(std::move(stream)), reader_(0) {}

StreamTransport::~StreamTransport() { Close(); }

void StreamTransport::Configure(const Options& options) noexcept {
  options_ = options;
  reader_.set_max_payload(options.max_payload);
  writer_.set_checksum(options.checksum);
}

Result<bool> StreamTransport::Submit(const Request& request) {
  if (closed_) return ClosedStatus();
  if (!lost_.ok()) return lost_;
  if (request.input.size() > options_.max_payload) {
    return Status(Code::kPayloadTooLarge, "the input has " + std::to_string(request.input.size()) +
                                              " bytes; this process takes at most " +
                                              std::to_string(options_.max_payload));
  }
  if (calls_.size() >= options_.max_in_flight) return false;
  if (!calls_.try_emplace(request.call, Call{request.output, false}).second) {
    return Status(Code::kInternal, "call " + std::to_string(request.call) + " is in flight already");
  }
  Frame frame;
  frame.type = FrameType::kCall;
  frame.flags = static_cast<uint16_t>(request.flags & (protocol::kIdempotent | protocol::kSync));
  frame.call = request.call;
  frame.function = request.function;
  frame.deadline_us = RemainingUs(request.deadline_ns);
  writer_.Push(frame, request.input);
  return true;
}

void StreamTransport::Cancel(uint64_t call) {
  if (closed_ || !lost_.ok() || !calls_.contains(call)) return;
  Frame frame;
  frame.type = FrameType::kCancel;
  frame.call = call;
  writer_.Push(frame);
}

void StreamTransport::Abandon(uint64_t call) {
  const auto found = calls_.find(call);
  if (found == calls_.end() || found->second.abandoned) return;
  const bool withdrawn = writer_.Withdraw(FrameType::kCall, call);
  const bool arriving = reader_.current_call() == call;
  if (arriving) reader_.DiscardCurrent();
  if (withdrawn || arriving) {
    // Either the peer has never heard of it, or its reply is being skipped: no other reply will come.
    calls_.erase(found);
    settled_.push_back(call);
    return;
  }
  found->second = {{}, true};
  Cancel(call);
}

size_t StreamTransport::Poll(const Sink& sink) {
  if (sink_ != nullptr) return 0;  // called from within a sink: the outer Poll goes on
  sink_ = &sink;
  handed_out_ = 0;
  if (!closed_ && lost_.ok()) {
    Flush();
    ReadIn();
    Flush();  // what the sinks pushed
  }
  for (const uint64_t call : std::exchange(settled_, {})) {
    Reply reply;
    reply.call = call;
    reply.status = Status(Code::kInvocationCancelled, "abandoned");
    ++handed_out_;
    sink(reply);
  }
  if (closed_ || !lost_.ok()) FailAll();
  sink_ = nullptr;
  return handed_out_;
}

void StreamTransport::Flush() {
  if (writer_.empty() || closed_ || !lost_.ok() || !write_error_.ok()) return;
  if (Result<bool> flushed = writer_.Flush(*stream_); !flushed.ok()) {
    // The reason may still lie unread in the socket (a kReject, replies that came before the end): reading goes on.
    write_error_ = flushed.status();
  }
}

void StreamTransport::ReadIn() {
  Result<protocol::FrameReader::State> read = reader_.Read(*stream_, *this);
  more_ = read.ok() && *read == protocol::FrameReader::State::kMore;
  if (closed_) return;  // by a sink
  Status failure;
  if (!read.ok()) {
    failure = PeerGone(read.status(), options_.gone);
  } else if (!write_error_.ok() && *read == protocol::FrameReader::State::kDrained) {
    failure = PeerGone(write_error_, options_.gone);
  }
  if (failure.ok()) return;
  const bool gone = failure.code() == Code::kHostLost || failure.code() == Code::kConnectionLost;
  lost_ = gone && !announced_.ok() ? announced_ : failure;
  stream_->Close();
}

void StreamTransport::FailAll() {
  writer_.Abort(closed_ ? ClosedStatus() : lost_);
  const auto calls = std::exchange(calls_, {});
  for (const auto& [call, state] : calls) {
    Reply reply;
    reply.call = call;
    reply.status = closed_ ? ClosedStatus() : lost_;
    ++handed_out_;
    (*sink_)(reply);
  }
}

bool StreamTransport::IsReply(const Frame& frame) const {
  return frame.type == FrameType::kReply && calls_.contains(frame.call);
}

Result<Placement> StreamTransport::OnHeader(const Frame& frame) {
  if (closed_) return ClosedStatus();
  if (!IsReply(frame)) {
    if (other_ != nullptr) return other_->OnHeader(frame);
    return Placement::Discard();
  }
  const Call& call = calls_.find(frame.call)->second;
  std::span<std::byte> output = call.output;
  if (output.empty() && frame.code == 0 && frame.payload_bytes >= kLargeResultBytes && !call.abandoned &&
      result_memory_) {
    output = result_memory_(frame.call, frame.payload_bytes);
  }
  const bool fits = frame.code == 0 && !output.empty() && output.size() >= frame.payload_bytes;
  return fits ? Placement::Into(output) : Placement::Scratch();
}

Status StreamTransport::OnFrame(const Frame& frame, std::span<std::byte> payload) {
  if (closed_) return ClosedStatus();
  if (!IsReply(frame)) return other_ != nullptr ? other_->OnFrame(frame, payload) : Status::Ok();
  if (frame.code != 0) {
    HandOut(frame.call, protocol::DecodeError(frame, payload), {});
  } else {
    HandOut(frame.call, Status::Ok(), payload);
  }
  return Status::Ok();
}

Status StreamTransport::OnCorrupt(const Frame& frame) {
  if (closed_) return ClosedStatus();
  if (!IsReply(frame)) {
    if (other_ != nullptr) return other_->OnCorrupt(frame);
    return Status(Code::kPayloadCorrupt, "a payload does not match its checksum");
  }
  HandOut(frame.call, Status(Code::kPayloadCorrupt, "the result does not match its checksum"), {});
  return Status::Ok();
}

void StreamTransport::HandOut(uint64_t call, Status status, std::span<const std::byte> payload) {
  const auto found = calls_.find(call);
  const bool abandoned = found->second.abandoned;
  calls_.erase(found);
  // A peer may answer (an error) before it has read all of the input, which the caller gets back now.
  if (!writer_.empty()) writer_.Withdraw(FrameType::kCall, call);
  Reply reply;
  reply.call = call;
  reply.status = std::move(status);
  if (!abandoned) reply.payload = payload;
  ++handed_out_;
  (*sink_)(reply);
}

bool StreamTransport::PrepareToSleep() {
  if (!settled_.empty()) return false;
  if (closed_ || !lost_.ok()) return calls_.empty();
  return !more_;
}

Result<Buffer> StreamTransport::Allocate(uint64_t bytes) {
  if (closed_) return ClosedStatus();
  if (bytes > options_.max_payload) {
    return Status(Code::kPayloadTooLarge, "a buffer of " + std::to_string(bytes) + " bytes; the largest payload has " +
                                              std::to_string(options_.max_payload));
  }
  std::unique_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes == 0 ? 1 : bytes]);
  if (!memory) return Status(Code::kBackpressure, "no memory for a buffer of " + std::to_string(bytes) + " bytes");
  Buffer buffer;
  buffer.data = memory.get();
  buffer.bytes = bytes;
  buffers_.emplace(buffer.data, std::move(memory));
  return buffer;
}

void StreamTransport::Release(const Buffer& buffer) { buffers_.erase(buffer.data); }

void StreamTransport::Close() noexcept {
  if (closed_) return;
  closed_ = true;
  stream_->Close();
}

}  // namespace praas::transport
