#include "host/sessions.h"

#include <sys/epoll.h>

#include <algorithm>
#include <string>

#include "base/clock.h"
#include "protocol/messages.h"

namespace praas::host {
namespace {

constexpr uint64_t kAcceptPauseNs = 100'000'000;

/// What a client is told that cannot be let in.
std::vector<std::byte> Refusal(const std::string& why) {
  const std::vector<std::byte> reject =
      protocol::Encode(protocol::Reject{.code = Code::kConnectionRefused, .message = "the process host " + why});
  protocol::Frame frame{.type = protocol::FrameType::kReject};
  frame.payload_bytes = reject.size();
  std::vector<std::byte> bytes(protocol::kHeaderBytes);
  protocol::EncodeHeader(frame, std::span(bytes).first<protocol::kHeaderBytes>());
  bytes.insert(bytes.end(), reject.begin(), reject.end());
  return bytes;
}

}  // namespace

Sessions::Sessions(SessionServices& services)
    : services_(services), no_descriptors_(Refusal("has no file descriptors left (see RLIMIT_NOFILE, `ulimit -n`)")) {
  services_.find = [this](uint64_t id) { return Find(id); };
  services_.wrote = [this](Session& session) { wrote_.push_back(session.id()); };
  services_.paused = [this](Session& session) { paused_.push_back(session.id()); };
  services_.closed = [this](Session& session) {
    by_id_.erase(session.id());
    closed_.push_back(session.slot());
    services_.functions.Forget(session.id());
    services_.verbs.Close(session.id());
    services_.windows.SessionClosed(session.id());
    services_.state.EndSession(session.id());
    services_.leases.SessionClosed(session.id(), Status(Code::kLeaseClosed, "its holder has gone"));
  };
}

Sessions::~Sessions() {
  StopListening();
  CloseAll(Status(Code::kConnectionClosed, "the host ends"));
}

Result<uint16_t> Sessions::Listen(const std::string& host, uint16_t port) {
  Result<transport::TcpListener> listener = transport::TcpListener::Listen(host, port);
  if (!listener) return listener.status();
  Result<EventLoop::WatchId> watch = services_.loop.Watch(listener->fd(), EPOLLIN, [this](uint32_t) { OnAccept(); });
  if (!watch) return watch.status();
  listener_.emplace(*std::move(listener));
  listen_watch_ = *watch;
  return listener_->port();
}

void Sessions::StopListening() {
  services_.loop.Unwatch(listen_watch_);
  listen_watch_ = 0;
  services_.loop.CancelTimer(listen_timer_);
  listen_timer_ = {};
  listener_.reset();
}

/// For want of descriptors: the connection stays in the queue, and with it the event.
void Sessions::PauseListening() {
  services_.loop.Change(listen_watch_, 0);
  listen_timer_ = services_.loop.At(DeadlineIn(kAcceptPauseNs), [this] {
    listen_timer_ = {};
    services_.loop.Change(listen_watch_, EPOLLIN);
  });
}

void Sessions::OnAccept() {
  // A few at a time: the loop comes back for the rest.
  for (int i = 0; i < 16; ++i) {
    Result<std::unique_ptr<transport::TcpStream>> stream = listener_->Accept(no_descriptors_);
    if (!stream) return PauseListening();
    if (*stream == nullptr) return;
    TurnAwayOldest();
    Add(std::move(*stream));
  }
}

/// Who has not shown a token may not use up what the others need, and not keep them from showing theirs: when there are
/// too many, the one goes who has had the most time for it.
void Sessions::TurnAwayOldest() {
  uint32_t strangers = 0;
  Session* oldest = nullptr;
  for (const auto& [id, slot] : by_id_) {
    Session* const session = slots_[slot].get();
    if (session->admitted()) continue;
    ++strangers;
    if (oldest == nullptr || id < oldest->id()) oldest = session;
  }
  if (strangers < kMaxStrangers) return;
  oldest->TurnAway(Status(Code::kConnectionRefused, "the process host has " + std::to_string(kMaxStrangers) +
                                                        " newer connections that are being set up"));
}

void Sessions::Add(std::unique_ptr<transport::ByteStream> stream) {
  const auto free = std::find(slots_.begin(), slots_.end(), nullptr);
  const auto slot = static_cast<uint32_t>(free - slots_.begin());
  if (free == slots_.end()) slots_.emplace_back();
  const uint64_t id = next_id_++;
  slots_[slot] = std::make_unique<Session>(services_, slot, id, std::move(stream));
  by_id_.emplace(id, slot);
  if (Status status = slots_[slot]->Start(); !status.ok()) slots_[slot]->Close(status);
}

Session* Sessions::Find(uint64_t id) {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : slots_[found->second].get();
}

void Sessions::Completed(uint32_t index) {
  const uint32_t slot = services_.calls.entry(index).connection_index;
  if (slot < slots_.size() && slots_[slot] != nullptr) {
    slots_[slot]->Completed(index);
  } else {
    services_.calls.Free(index);
  }
}

void Sessions::PumpStreams() {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] != nullptr && slots_[slot]->open()) slots_[slot]->PumpStreams();
  }
}

void Sessions::Goodbye(const Status& why) {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] != nullptr) slots_[slot]->Goodbye(why);
  }
}

void Sessions::Resume() {
  const std::vector<uint64_t> paused = std::exchange(paused_, {});
  for (const uint64_t id : paused) {
    if (Session* session = Find(id)) session->Resume();
  }
}

void Sessions::Settle() {
  // Flushing may write again (credit, replies of calls that were let in): to the end.
  while (!wrote_.empty()) {
    const std::vector<uint64_t> wrote = std::exchange(wrote_, {});
    for (const uint64_t id : wrote) {
      if (Session* session = Find(id)) session->Flush();
    }
  }
  Bury();
}

void Sessions::Bury() {
  std::erase_if(closed_, [this](uint32_t slot) {
    if (slots_[slot]->in_flight() > 0) return false;
    slots_[slot].reset();
    return true;
  });
}

void Sessions::Tick(uint64_t now_ns) {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] != nullptr) slots_[slot]->Tick(now_ns);
  }
}

void Sessions::CloseAll(const Status& why) {
  for (size_t slot = 0; slot < slots_.size(); ++slot) {
    if (slots_[slot] != nullptr) slots_[slot]->Close(why);
  }
}

}  // namespace praas::host
