#include "client/connection.h"

#include <poll.h>

#include <array>
#include <utility>

#include "base/clock.h"
#include "base/spin.h"
#include "client/handshake.h"
#include "protocol/messages.h"
#include "transport/tcp.h"

namespace praas::client {

namespace {

// With a shared window the socket only tells of names, state and the host's end: looking at it costs a system call, as
// much as a hot call, so a polling owner looks now and then: every 10 to 30 µs.
constexpr uint32_t kPollsPerSocketLook = 256;
// The clock takes as long as several polls.
constexpr uint32_t kPollsPerClockLook = 16;

Status ClosedStatus() { return Status(Code::kConnectionClosed, "the connection is closed"); }

}  // namespace

Connection::Connection(std::unique_ptr<transport::StreamTransport> wire, uint64_t stream_credit, ServerInfo info)
    : info_(std::move(info)),
      stream_credit_(stream_credit),
      wire_(std::move(wire)),
      on_reply_([this](const transport::Reply& reply) { OnReply(reply); }) {
  wire_->SetOther(this);
}

Connection::~Connection() { Close(); }

Result<std::unique_ptr<Connection>> Connection::Connect(const ConnectOptions& options) {
  const uint64_t deadline_ns = DeadlineIn(options.timeout_ns);
  Result<std::unique_ptr<transport::TcpStream>> stream = transport::TcpConnect(options.host, options.port, deadline_ns);
  if (!stream.ok()) return stream.status();
  return Establish(std::move(*stream), "tcp", options, deadline_ns);
}

Result<std::unique_ptr<Connection>> Connection::Over(std::unique_ptr<transport::ByteStream> stream, const char* name,
                                                     const ConnectOptions& options) {
  return Establish(std::move(stream), name, options, DeadlineIn(options.timeout_ns));
}

Result<std::unique_ptr<Connection>> Connection::Establish(std::unique_ptr<transport::ByteStream> stream,
                                                          const char* name, const ConnectOptions& options,
                                                          uint64_t deadline_ns) {
  if (options.transport != "auto" && options.transport != "shm" && options.transport != "verbs" &&
      options.transport != "tcp") {
    return Status(Code::kArgumentInvalid,
                  "transport is \"" + options.transport + "\"; it must be auto, shm, verbs or tcp");
  }
  auto wire = std::make_unique<transport::StreamTransport>(name, std::move(stream));
  Result<protocol::Welcome> welcome = Handshake(*wire, options, deadline_ns);
  if (!welcome.ok()) return welcome.status();

  ServerInfo info;
  info.process = welcome->process;
  info.transport = name;
  info.max_contiguous = welcome->max_contiguous;
  info.max_in_flight = welcome->max_in_flight;
  info.default_timeout_ns = welcome->default_timeout_ns;
  info.host_pid = welcome->host_pid;
  Result<Upgraded> upgraded = Upgrade(*wire, options, *welcome, deadline_ns);
  if (!upgraded.ok()) return upgraded.status();
  if (upgraded->transport) info.transport = upgraded->transport->name();
  info.upgrade_reason = std::move(upgraded->reason);
  std::unique_ptr<Connection> connection(new Connection(std::move(wire), welcome->stream_credit, std::move(info)));
  connection->direct_ = std::move(upgraded->transport);
  return connection;
}

// --- progress ---

size_t Connection::Poll(const ReplySink& replies, const StreamSink& streams) {
  const bool look =
      !direct_ || slept_ || requests_in_flight_ > 0 || wire_->wants_write() || ++polls_ % kPollsPerSocketLook == 0;
  return PollOnce(replies, streams, look);
}

size_t Connection::PollOnce(const ReplySink& replies, const StreamSink& streams, bool look_at_everything) {
  if (replies_ != nullptr) return 0;  // called from within a sink: the outer Poll goes on
  replies_ = &replies;
  streams_ = &streams;
  events_ = 0;
  slept_ = false;
  room_made_ = false;
  if (direct_) {
    direct_->Poll(on_reply_);
    if (!direct_->broken().ok()) FallBack();
  }
  if (look_at_everything) {
    wire_->Poll(on_reply_);
    if (direct_ && !closed_ && !wire_->lost().ok()) {
      direct_->Fail(wire_->lost());
      direct_->Poll(on_reply_);
    } else if (direct_ && !closed_ && !direct_->broken().ok()) {  // the host has ended it
      direct_->Poll(on_reply_);
      FallBack();
    }
  }
  if (closed_) {
    FailAll(ClosedStatus());
  } else if (!wire_->lost().ok()) {
    FailAll(wire_->lost());
  } else {
    Drain(waiting_requests_);
    Drain(waiting_calls_);
    AnnounceRoom();
    if (look_at_everything && calls_.earliest_deadline_ns() != kNoDeadline) {
      if (const uint64_t now = NowNs(); now >= calls_.earliest_deadline_ns()) Expire(now);
    }
    wire_->Flush();  // what was drained, and what sinks asked for
  }
  HandOutSettled();
  replies_ = nullptr;
  streams_ = nullptr;
  return events_;
}

/// The direct transport has broken while the host lives: calls go over the socket from here on.
void Connection::FallBack() {
  info_.transport = wire_->name();
  info_.upgrade_reason = direct_->broken().message();
  retired_ = std::move(direct_);
  protocol::Frame frame;
  frame.type = protocol::FrameType::kUpgrade;
  wire_->writer().PushCopy(frame, Encode(protocol::UpgradeRequest{.transport = "tcp"}));
}

/// A call that the direct transport has lost and that may be made twice is made again over the socket.
bool Connection::TryAgain(const transport::Reply& reply) {
  if (reply.status.code() != Code::kConnectionLost || !direct_ || direct_->broken().ok() || closed_ ||
      !wire_->lost().ok()) {
    return false;
  }
  Call* call = calls_.Find(reply.call);
  if (call == nullptr || call->state != CallState::kSent || (call->flags & protocol::kIdempotent) == 0) return false;
  call->state = CallState::kWaiting;
  waiting_calls_.push_back(call->id);
  return true;
}

void Connection::WaitFor(uint64_t call, uint64_t spin_ns, const ReplySink& replies, const StreamSink& streams) {
  if (replies_ != nullptr) return;
  const auto pending = [&] {
    const Call* found = calls_.Find(call);
    return found != nullptr && found->state != CallState::kAbandoned;
  };
  SpinYield spin;
  bool spinning = spin_ns > 0;
  uint64_t spin_until = 0;
  // An answer takes longer than its request: whoever sleeps at once need not look before.
  bool look = spinning;
  if (!look) {
    wire_->Flush();
    if (direct_) direct_->Flush();
  }
  while (true) {
    if (std::exchange(look, true)) Poll(replies, streams);
    if (!pending()) return;
    if (spinning) {
      spin.Step();
      LookOut();
      if (spin.steps() % kPollsPerClockLook == 0) {
        if (spin_until == 0) spin_until = DeadlineIn(spin_ns);
        spinning = NowNs() < spin_until;
      }
      continue;
    }
    if (!PrepareToSleep()) continue;
    std::array<pollfd, 2> waiting;
    waiting[0] = {wire_->fd(), static_cast<short>(POLLIN | (wire_->wants_write() ? POLLOUT : 0)), 0};
    waiting[1] = {transport_fd(), POLLIN, 0};
    // Interrupted or failed: the next round looks at everything again, and the deadline ends it.
    const int ready = ::poll(waiting.data(), waiting.size(), PollTimeoutMs(next_deadline_ns()));
    if (ready > 0 && waiting[0].revents == 0) slept_ = false;  // the socket has nothing: a system call less
  }
}

void Connection::LookOut() const noexcept {
  if (direct_) static_cast<void>(praas::LookOut([this] { return direct_->HasAnswer(); }));
}

bool Connection::PrepareToSleep() {
  slept_ = true;
  if (!settled_.empty() || !room_news_.empty() || room_made_) return false;
  if (direct_ && !direct_->broken().ok() && !closed_) return false;  // Poll goes on without it
  if ((closed_ || !wire_->lost().ok()) && calls_.open() > 0) return false;
  if (!wire_->PrepareToSleep()) return false;
  return !direct_ || direct_->PrepareToSleep();
}

void Connection::OnReply(const transport::Reply& reply) {
  if (!reply.status.ok() && TryAgain(reply)) return;
  if (const Call* call = calls_.Find(reply.call); call != nullptr && call->kind == CallKind::kInvoke) {
    HandOut(reply.call, reply.status, reply.payload);
  }
}

/// The one place where a call other than a stream ends.
void Connection::HandOut(uint64_t id, Status status, std::span<const std::byte> payload) {
  Call* call = calls_.Find(id);
  if (call == nullptr) return;
  const bool abandoned = call->state == CallState::kAbandoned;
  if (call->kind != CallKind::kInvoke && (abandoned || call->state == CallState::kSent)) CountAnswer(*call);
  calls_.Remove(*call);
  if (abandoned) return;
  ++events_;
  transport::Reply reply;
  reply.call = id;
  reply.status = std::move(status);
  reply.payload = payload;
  (*replies_)(reply);
}

void Connection::EndStream(Call& call, Status status) {
  const uint64_t id = call.id;
  const bool abandoned = call.state == CallState::kAbandoned;
  if (abandoned || call.state == CallState::kSent) CountAnswer(call);
  calls_.Remove(call);
  if (!abandoned) EmitStream({.call = id, .kind = StreamEvent::Kind::kEnd, .status = std::move(status)});
}

void Connection::EmitStream(const StreamEvent& event) {
  ++events_;
  (*streams_)(event);
}

void Connection::Settle(Call& call, Status status) {
  if (call.state == CallState::kWaiting) call.state = CallState::kSettled;
  settled_.push_back({call.id, std::move(status)});
}

void Connection::HandOutSettled() {
  for (Settled& each : std::exchange(settled_, {})) {
    Call* call = calls_.Find(each.call);
    if (call == nullptr) continue;
    if (call->kind == CallKind::kStream) {
      EndStream(*call, std::move(each.status));
    } else {
      HandOut(each.call, std::move(each.status), {});
    }
  }
}

void Connection::AnnounceRoom() {
  for (const uint64_t id : std::exchange(room_news_, {})) {
    Call* call = calls_.Find(id);
    if (call == nullptr || call->state != CallState::kSent || !call->stream || !call->stream->TakeRoomNews()) continue;
    EmitStream({.call = id, .kind = StreamEvent::Kind::kRoom, .room = call->stream->room()});
  }
}

/// Answers what is past its deadline, whatever the peer does. What the peer knows of stays in the table until it
/// answers.
void Connection::Expire(uint64_t now_ns) {
  for (const uint64_t id : calls_.Expired(now_ns)) {
    Call* call = calls_.Find(id);
    if (call == nullptr || call->state == CallState::kAbandoned) continue;
    Status status(Code::kInvocationTimeout, "no answer before the deadline");
    if (call->type == protocol::FrameType::kState && call->op == static_cast<uint16_t>(protocol::StateOp::kLock)) {
      status = Status(Code::kStateLockTimeout, "the lock was not granted before the deadline");
    }
    if (call->state == CallState::kWaiting) {
      if (call->refused) status = Status(Code::kBackpressure, "found no room to be sent before the deadline");
      Settle(*call, std::move(status));
      continue;
    }
    const CallKind kind = call->kind;
    if (kind == CallKind::kInvoke) {
      if (direct_) {
        direct_->Abandon(id);
      } else {
        wire_->Abandon(id);
      }
    } else {
      wire_->writer().Detach(call->type, id);
      SendCancel(id);
    }
    calls_.MarkAbandoned(*call);
    if (kind == CallKind::kStream) {
      EmitStream({.call = id, .kind = StreamEvent::Kind::kEnd, .status = std::move(status)});
    } else {
      ++events_;
      transport::Reply reply;
      reply.call = id;
      reply.status = std::move(status);
      (*replies_)(reply);
    }
    if (closed_) return;
  }
}

void Connection::FailAll(const Status& status) {
  waiting_calls_.clear();
  waiting_requests_.clear();
  room_news_.clear();
  for (const uint64_t id : calls_.Open()) Settle(*calls_.Find(id), status);
}

Result<transport::Buffer> Connection::Allocate(uint64_t bytes) {
  if (Status open = CheckOpen(); !open.ok()) return open;
  return direct_ ? direct_->Allocate(bytes) : wire_->Allocate(bytes);
}

void Connection::Release(const transport::Buffer& buffer) {
  room_made_ = true;
  if (retired_ && retired_->Owns(buffer)) {
    retired_->Release(buffer);
  } else if (direct_) {
    direct_->Release(buffer);
  } else {
    wire_->Release(buffer);
  }
}

void Connection::Trim() {
  if (calls_.open() > 0) return;
  if (direct_) direct_->Trim();
  if (retired_) retired_->Trim();
}

void Connection::Close() noexcept {
  if (closed_) return;
  closed_ = true;
  if (wire_->lost().ok()) {
    // As a courtesy: the end of the socket says the same.
    protocol::Frame frame;
    frame.type = protocol::FrameType::kGoodbye;
    wire_->writer().PushCopy(frame, Encode(protocol::Reject{Code::kOk, "closed by the client"}));
    wire_->Flush();
  }
  wire_->Close();
  if (direct_) direct_->Close();
  if (retired_) retired_->Close();
}

Connection::Counters Connection::counters() const noexcept {
  return {.staged_bytes = wire_->reader().staged_bytes() + wire_->writer().staged_bytes(),
          .direct_bytes = wire_->reader().direct_bytes() + wire_->writer().direct_bytes(),
          .writes = wire_->writer().writes(),
          .frames_sent = wire_->writer().frames(),
          .frames_received = wire_->reader().frames()};
}

}  // namespace praas::client
