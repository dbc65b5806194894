#include "worker/served_connection.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "protocol/messages.h"
#include "protocol/names.h"
#include "shm/memfd.h"
#include "transport/tcp.h"
#include "window/layout.h"
#include "worker/core.h"

namespace praas::worker {

using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

namespace {

/// Answers a client may leave unread before its calls wait.
constexpr uint64_t kMaxQueuedBytes = 4u << 20;
constexpr uint32_t kPollsPerSocketLook = 1024;

Status NotHere() {
  return Status(Code::kUnsupported, "a leased worker takes calls; ask the process's own connection for all else");
}

}  // namespace

Result<std::unique_ptr<ServedConnection>> ServedConnection::Make(UniqueFd socket, uint32_t window,
                                                                 window::Handover handover,
                                                                 const segment::Segment& segment, const Limits& limits,
                                                                 Watch watch) {
  Result<std::unique_ptr<transport::TcpStream>> stream = transport::TcpStream::Adopt(std::move(socket));
  if (!stream.ok()) return stream.status();
  std::unique_ptr<ServedConnection> connection(
      new ServedConnection(*std::move(stream), window, std::move(handover), segment, limits, std::move(watch)));
  const uint32_t events = EPOLLIN | EPOLLOUT | EPOLLRDHUP;
  if (Status status = connection->watch_(connection->stream_->fd(), events, connection.get()); !status.ok())
    return status;
  connection->writer_.PushCopy({.type = FrameType::kUpgradeOffer},
                               protocol::Encode(protocol::UpgradeOffer{.worker = true}));
  connection->Flush();
  return connection;
}

ServedConnection::ServedConnection(std::unique_ptr<transport::ByteStream> stream, uint32_t window,
                                   window::Handover handover, const segment::Segment& segment, const Limits& limits,
                                   Watch watch)
    : stream_(std::move(stream)),
      window_(window),
      segment_(segment),
      limits_(limits),
      watch_(std::move(watch)),
      handover_(std::move(handover)),
      reader_(limits.max_contiguous),
      on_reply_([this](const transport::Reply& reply) { OnReply(reply); }) {
  writer_.set_checksum(limits.checksum);
}

ServedConnection::~ServedConnection() {
  End(Status(Code::kConnectionClosed, "the worker ends"));
  if (calls_ != nullptr) calls_->Close();
}

Result<window::Handover> ServedConnection::CopyOfHandover() const {
  window::Handover copy{.memfd = UniqueFd(::fcntl(handover_.memfd.get(), F_DUPFD_CLOEXEC, 3)),
                        .submit_event = UniqueFd(::fcntl(handover_.submit_event.get(), F_DUPFD_CLOEXEC, 3)),
                        .complete_event = UniqueFd(::fcntl(handover_.complete_event.get(), F_DUPFD_CLOEXEC, 3)),
                        .window_bytes = handover_.window_bytes};
  if (!copy.memfd || !copy.submit_event || !copy.complete_event) return Status::System("fcntl(F_DUPFD_CLOEXEC)");
  return copy;
}

/// Calls come over the socket.
Status ServedConnection::OpenCalls() {
  Result<window::Handover> handover = CopyOfHandover();
  if (!handover.ok()) return handover.status();
  Result<std::unique_ptr<transport::ShmTransport>> calls =
      transport::ShmTransport::Create(*std::move(handover), limits_.default_timeout_ns);
  if (!calls.ok()) return calls.status();
  calls_ = *std::move(calls);
  const uint32_t functions = segment_.header().function_count.load(std::memory_order_acquire);
  for (uint32_t index = 0; index < functions; ++index) {
    const uint32_t pages = segment_.function(index).max_output_pages;
    if (pages > 0) calls_->ExpectResults(index, pages);
  }
  return watch_(calls_->fd(), EPOLLIN, nullptr);
}

Result<protocol::UpgradeOffer> ServedConnection::UseVerbs(const protocol::UpgradeRequest& request) {
  if (!request.verbs) return Status(Code::kProtocolInvalid, "a verbs upgrade without the client's end");
  if (calls_ != nullptr || verbs_ != nullptr) {
    return Status(Code::kUpgradeFailed, "the transport is chosen before the first call");
  }
  Result<window::Handover> handover = CopyOfHandover();
  if (!handover.ok()) return handover.status();
  Result<std::unique_ptr<ServedVerbs>> verbs = ServedVerbs::Make(
      *std::move(handover), segment_,
      {.max_contiguous = limits_.max_contiguous, .default_timeout_ns = limits_.default_timeout_ns}, *request.verbs);
  if (!verbs.ok()) return verbs.status();
  for (const int fd : {(*verbs)->completions_fd(), (*verbs)->results_fd(), (*verbs)->events_fd()}) {
    if (Status status = watch_(fd, EPOLLIN, nullptr); !status.ok()) return status;
  }
  verbs_ = *std::move(verbs);
  return protocol::UpgradeOffer{.verbs = verbs_->end()};
}

Status ServedConnection::OnUpgrade(std::span<const std::byte> payload) {
  const Result<protocol::UpgradeRequest> request = protocol::DecodeUpgradeRequest(payload);
  if (!request.ok()) return request.status();
  Result<protocol::UpgradeOffer> offer =
      request->transport == "verbs" ? UseVerbs(*request)
                                    : Status(Code::kUpgradeFailed, "this worker serves its client over the socket");
  // "tcp" comes after an attempt that came to nothing on the other side.
  if (request->transport == "tcp") verbs_.reset();
  protocol::UpgradeOffer answer;
  if (offer.ok()) {
    answer = *std::move(offer);
  } else {
    answer.refused = protocol::Reject{.code = offer.status().code(), .message = offer.status().message()};
  }
  writer_.PushCopy({.type = FrameType::kUpgradeOffer}, protocol::Encode(answer));
  return Status::Ok();
}

// -------------------------------------------------------------------------------------------------------------------
// progress

bool ServedConnection::Poll() {
  if (!ended_.ok()) return false;
  if (verbs_ == nullptr) return ReadSocket();
  bool progress = verbs_->Poll();
  if (!verbs_->broken().ok()) {
    Goodbye(verbs_->broken());
    End(verbs_->broken());
    return true;
  }
  // Looking at the socket is a system call, which calls by RDMA do not need.
  if (polls_++ % kPollsPerSocketLook == 0) progress |= ReadSocket();
  return progress;
}

bool ServedConnection::ReadSocket() {
  bool progress = DeliverFromSocket();
  if (!ended_.ok()) return true;
  if (paused_ || !(hot_ || news_)) return progress;
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
  news_ = *state != protocol::FrameReader::State::kDrained;
  progress |= reader_.frames() != frames || more_;
  if (!writer_.empty()) Flush();
  return progress;
}

void ServedConnection::Deliver() {
  if (!ended_.ok()) return;
  if (verbs_ != nullptr) return verbs_->Deliver();
  DeliverFromSocket();
}

/// true: there was something.
bool ServedConnection::DeliverFromSocket() {
  const bool progress = in_flight_ > 0 && calls_->Poll(on_reply_) > 0;
  const bool sent = !writer_.empty() && Flush();
  if (progress || sent) paused_ = false;  // there may be room again
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
  if (calls_ != nullptr && receiving_) calls_->Release(*std::exchange(receiving_, std::nullopt));
  CancelAll();
}

void ServedConnection::CancelAll() {
  cancelled_ = true;
  if (verbs_ != nullptr) return verbs_->CancelAll();
  if (calls_ != nullptr) calls_->CancelAll();
}

bool ServedConnection::PrepareToSleep() {
  if (!ended_.ok()) return true;
  polls_ = 0;  // whatever ends the sleep, the socket is looked at
  if (more_) return false;
  if (verbs_ != nullptr) return verbs_->PrepareToSleep();
  return in_flight_ == 0 || calls_->PrepareToSleep();  // without calls there are no results to be woken by
}

// -------------------------------------------------------------------------------------------------------------------
// frames

Result<Placement> ServedConnection::OnHeader(const Frame& frame) {
  const bool answered = frame.type != FrameType::kData && frame.type != FrameType::kCredit &&
                        frame.type != FrameType::kCancel && frame.type != FrameType::kGoodbye;
  if (answered && writer_.queued_bytes() > kMaxQueuedBytes) return Placement::NotNow();
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
  if (calls_ == nullptr && verbs_ == nullptr) {
    if (Status status = OpenCalls(); !status.ok()) {
      Refuse(frame.call, status);
      return Placement::Discard();
    }
  }
  if ((frame.flags & protocol::kStream) != 0 || verbs_ != nullptr) {
    ReplyError(FrameType::kReply, frame.call, NotHere());
    return Placement::Discard();
  }
  if (in_flight_ >= window::kCalls) return Placement::NotNow();
  if (frame.payload_bytes < protocol::kDirectBytes) return Placement::Scratch();
  const Result<transport::Buffer> block = calls_->Allocate(frame.payload_bytes);
  if (block.ok()) {
    receiving_ = *block;
    return Placement::Into({block->data, block->bytes});
  }
  if (block.status().code() == Code::kBackpressure && in_flight_ > 0) return Placement::NotNow();
  Refuse(frame.call, block.status());
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
      return OnUpgrade(payload);
    case FrameType::kCancel:
      if (calls_ != nullptr) calls_->Cancel(frame.call);
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
  Status status(Code::kPayloadCorrupt, "the payload does not match its checksum");
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
    Refuse(frame.call,
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
    // What a function throws when it is told to stop is not its outcome: the client learns from the host why.
    const Status over(Code::kLeaseClosed, "the lease is over");
    return ReplyError(FrameType::kReply, reply.call, cancelled_ ? over : reply.status);
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

/// Of a call that could not be made, because there was no memory for it, say.
void ServedConnection::Refuse(uint64_t call, const Status& why) {
  if (shm::IsNoMemfd(why.sys_errno())) Core::DescriptorLost();
  ReplyError(FrameType::kReply, call, why);
}

void ServedConnection::ReplyError(FrameType type, uint64_t call, const Status& status) {
  Frame frame{.type = type, .call = call};
  const std::span<const std::byte> message = protocol::SetError(frame, status);
  writer_.PushCopy(frame, message);
}

}  // namespace praas::worker
