#include "host/session.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>

#include "base/clock.h"

namespace praas::host {
namespace {

using protocol::Frame;
using protocol::FrameType;
using protocol::Placement;

/// Answers a client may leave unread before its requests wait.
constexpr uint64_t kMaxQueuedBytes = 4u << 20;
/// A client that takes nothing for so long while there is something to take is gone.
constexpr uint64_t kStalledNs = 60'000'000'000;
constexpr uint64_t kLingerNs = 1'000'000'000;

}  // namespace

Session::Session(SessionServices& services, uint32_t slot, uint64_t id, std::unique_ptr<transport::ByteStream> stream)
    : services_(services),
      slot_(slot),
      id_(id),
      stream_(std::move(stream)),
      reader_(protocol::kMaxHelloBytes),
      streams_(services.loop, services.process, services.calls, services.rings, *this) {}

Session::~Session() { Close(Status(Code::kConnectionClosed, "the host ends")); }

Status Session::Start() {
  Result<EventLoop::WatchId> watch =
      services_.loop.Watch(stream_->fd(), EPOLLIN | EPOLLRDHUP, [this](uint32_t events) { OnEvents(events); });
  if (!watch) return watch.status();
  watch_ = *watch;
  timer_ = services_.loop.At(DeadlineIn(services_.handshake_ns), [this] {
    timer_ = {};
    Reject(Status(Code::kConnectionTimeout, "no handshake in time"));
  });
  return Status::Ok();
}

void Session::OnEvents(uint32_t events) {
  if (phase_ == Phase::kLingering) {
    std::array<std::byte, 4096> ignored;
    for (int i = 0; i < 16; ++i) {
      const Result<size_t> got = stream_->Read(ignored);
      if (!got.ok()) return Close(got.status());
      if (*got == 0) return;
    }
    return;
  }
  if ((events & EPOLLOUT) != 0) Flush();
  if (closed() || phase_ == Phase::kLingering) return;
  // While reads are paused, the end of the connection is not found by reading.
  if (paused_ && (events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) {
    return Close(Status(Code::kConnectionLost, "the client has closed the connection"));
  }
  if ((events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0 && !paused_) Read();
}

void Session::Read() {
  if (closed() || phase_ == Phase::kLingering) return;
  const Result<protocol::FrameReader::State> state = reader_.Read(*stream_, *this);
  Count();
  if (closed()) return;
  if (phase_ == Phase::kHandingOver) return HandOver();
  if (!state.ok()) {
    // Somebody who speaks something else gets told once, before and after the handshake.
    const Code code = state.status().code();
    if (code != Code::kConnectionLost && code != Code::kConnectionClosed && phase_ != Phase::kLeaving) {
      return Reject(state.status());
    }
    return Close(state.status());
  }
  paused_ = *state == protocol::FrameReader::State::kPaused;
  UpdateEvents();
}

/// Payload bytes that have passed since the last time, into the host's counters.
void Session::Count() noexcept {
  const Moved now{.in = reader_.staged_bytes() + reader_.direct_bytes(),
                  .out = writer_.staged_bytes() + writer_.direct_bytes() + writer_.copied_bytes(),
                  .staged = reader_.staged_bytes() + writer_.staged_bytes(),
                  .copied = writer_.copied_bytes()};
  dispatch::Counters& counters = services_.process.segment->participant(dispatch::kHostParticipant).counters;
  const auto add = [](std::atomic<uint64_t>& counter, uint64_t bytes) {
    if (bytes > 0) counter.fetch_add(bytes, std::memory_order_relaxed);
  };
  add(counters.bytes_in, now.in - counted_.in);
  add(counters.bytes_out, now.out - counted_.out);
  add(counters.staged_bytes, now.staged - counted_.staged);
  add(counters.copied_bytes, now.copied - counted_.copied);
  counted_ = now;
}

void Session::Resume() {
  if (!paused_ || closed()) return;
  paused_ = false;
  Read();
}

void Session::UpdateEvents() {
  if (watch_ == 0) return;
  uint32_t events = EPOLLRDHUP;
  if (!paused_) events |= EPOLLIN;
  if (wants_write_) events |= EPOLLOUT;
  services_.loop.Change(watch_, events);
}

Result<Placement> Session::OnHeader(const Frame& frame) {
  if (phase_ == Phase::kHandshake) {
    if (frame.type != FrameType::kHello || frame.payload_bytes > protocol::kMaxHelloBytes) {
      return Status(Code::kProtocolInvalid, "the first frame has to be a hello");
    }
    return Placement::Scratch();
  }
  if (phase_ != Phase::kOpen) return Placement::Discard();
  const bool answered = frame.type != FrameType::kData && frame.type != FrameType::kCredit &&
                        frame.type != FrameType::kCancel && frame.type != FrameType::kGoodbye;
  if (answered && writer_.queued_bytes() > kMaxQueuedBytes) return Placement::NotNow();
  switch (frame.type) {
    case FrameType::kCall:
      return OnCallHeader(frame);
    case FrameType::kData:
      return streams_.OnDataHeader(frame);
    case FrameType::kState:
      return OnStateHeader(frame);
    case FrameType::kResolve:
    case FrameType::kUpgrade:
    case FrameType::kCancel:
    case FrameType::kCredit:
    case FrameType::kAdmin:
    case FrameType::kLease:
    case FrameType::kPing:
    case FrameType::kPong:
    case FrameType::kGoodbye:
      return Placement::Scratch();
    default:
      return Status(Code::kProtocolInvalid,
                    "frame type " + std::to_string(static_cast<unsigned>(frame.type)) + " does not come from a client");
  }
}

Status Session::OnFrame(const Frame& frame, std::span<std::byte> payload) {
  if (phase_ == Phase::kHandshake) return OnHello(frame, payload);
  switch (frame.type) {
    case FrameType::kCall:
      PostReceived();
      return Status::Ok();
    case FrameType::kData:
      return streams_.OnData(frame);
    case FrameType::kCredit:
      return streams_.OnCredit(frame);
    case FrameType::kState:
      OnState(frame);
      return Status::Ok();
    case FrameType::kResolve:
      OnResolve(frame, payload);
      return Status::Ok();
    case FrameType::kUpgrade:
      OnUpgrade(payload);
      if (phase_ == Phase::kHandingOver) return Status(Code::kConnectionClosed, "a leased worker goes on");
      return Status::Ok();
    case FrameType::kLease:
      OnLease(frame, payload);
      return Status::Ok();
    case FrameType::kAdmin:
      return OnAdmin(frame, payload);
    case FrameType::kCancel:
      Cancel(frame.call);
      return Status::Ok();
    case FrameType::kPing:
      writer_.Push({.type = FrameType::kPong, .aux = frame.aux});
      Wrote();
      return Status::Ok();
    case FrameType::kGoodbye:
      return Status(Code::kConnectionClosed, "the client has said goodbye");
    default:
      return Status::Ok();
  }
}

Status Session::OnCorrupt(const Frame& frame) {
  Status status(Code::kPayloadCorrupt, "the payload does not match its checksum");
  switch (frame.type) {
    case FrameType::kCall:
      DropReceived();
      Reply({.type = FrameType::kReply, .call = frame.call}, status);
      return Status::Ok();
    case FrameType::kState:
      DropReceived();
      Reply({.type = FrameType::kStateReply, .call = frame.call}, status);
      return Status::Ok();
    case FrameType::kResolve:
      Reply({.type = FrameType::kResolved, .call = frame.call}, status);
      return Status::Ok();
    case FrameType::kAdmin:
      Reply({.type = FrameType::kAdminReply, .call = frame.call}, status);
      return Status::Ok();
    case FrameType::kLease:
      Reply({.type = FrameType::kLeaseReply, .call = frame.call}, status);
      return Status::Ok();
    default:
      return status;  // without this frame the rest of the connection makes no sense
  }
}

void Session::Reply(Frame frame, const Status& status) {
  const std::span<const std::byte> message = protocol::SetError(frame, status);
  writer_.PushCopy(frame, message);
  Wrote();
}

void Session::Flush() {
  unflushed_ = false;
  if (closed() || phase_ == Phase::kLingering) return;
  const uint64_t queued = writer_.queued_bytes();
  const Result<bool> sent = writer_.Flush(*stream_);
  Count();
  if (!sent.ok()) return Close(sent.status());
  if (*sent || writer_.queued_bytes() != queued) {
    stalled_ns_ = 0;
  } else if (stalled_ns_ == 0) {
    stalled_ns_ = NowNs();
  }
  if (*sent && phase_ == Phase::kLeaving) return Linger();
  streams_.PumpOutput();
  const bool wants_write = !writer_.empty();
  if (wants_write != wants_write_) {
    wants_write_ = wants_write;
    UpdateEvents();
  }
  if (paused_ && !waiting_deadline_ && writer_.queued_bytes() <= kMaxQueuedBytes) Resume();
}

void Session::PumpStreams() { streams_.Pump(); }

void Session::Tick(uint64_t now_ns) {
  if (closed()) return;
  if (stalled_ns_ != 0 && now_ns > stalled_ns_ && now_ns - stalled_ns_ > kStalledNs) {
    return Close(Status(Code::kConnectionLost, "the client does not take its answers"));
  }
  if (receiving_ && services_.calls.entry(*receiving_).deadline_ns <= now_ns) {
    reader_.DiscardCurrent();
    DropReceived();
    Reply({.type = FrameType::kReply, .call = receiving_call_},
          Status(Code::kInvocationTimeout, "the input had not arrived at the deadline"));
  }
  if (receiving_state_.memory != nullptr && state_deadline_ns_ <= now_ns) {
    reader_.DiscardCurrent();
    DropReceived();
    Reply({.type = FrameType::kStateReply, .call = receiving_call_},
          Status(Code::kInvocationTimeout, "the state request had not arrived at the deadline"));
  }
  if (waiting_deadline_ && *waiting_deadline_ <= now_ns) Resume();
}

void Session::Goodbye(const Status& why) {
  if (phase_ != Phase::kOpen) return;
  writer_.PushCopy({.type = FrameType::kGoodbye},
                   protocol::Encode(protocol::Reject{.code = why.code(), .message = why.message()}));
  Wrote();
}

void Session::Dismiss(const Status& why) {
  if (phase_ == Phase::kHandshake) return Reject(why);
  if (phase_ != Phase::kOpen) return;
  Goodbye(why);
  Leave();
}

void Session::TurnAway(const Status& why) {
  Reject(why);
  OnEvents(EPOLLIN);  // what it has said already would make the kernel reset the connection
  Close(why);
}

void Session::Leave() {
  phase_ = Phase::kLeaving;
  // What is arriving is not carried out any more.
  reader_.DiscardCurrent();
  DropReceived();
  services_.loop.CancelTimer(timer_);
  timer_ = services_.loop.At(DeadlineIn(kLingerNs), [this] {
    timer_ = {};
    Close(Status(Code::kConnectionClosed, "the client does not take the last frames"));
  });
  CancelAll();
  Flush();
}

void Session::Linger() {
  phase_ = Phase::kLingering;
  ::shutdown(stream_->fd(), SHUT_WR);
  paused_ = false;
  wants_write_ = false;
  UpdateEvents();
}

void Session::Close(const Status& why) {
  if (closed()) return;
  phase_ = Phase::kClosed;
  if (calls_) --services_.callers;
  services_.loop.CancelTimer(timer_);
  services_.loop.Unwatch(watch_);
  watch_ = 0;
  writer_.Abort(why);
  DropReceived();
  streams_.Abort();
  CancelAll();
  stream_->Close();
  services_.closed(*this);
}

}  // namespace praas::host
