#include "worker/lease.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <string>
#include <utility>

#include "base/clock.h"

namespace praas::worker {

Lease::Lease(Core& core, Inbox& inbox, RunningTable& running, Windows& windows)
    : core_(core), inbox_(inbox), running_(running), windows_(windows), waiter_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!Watch(core_.event.get(), EPOLLIN, this)) Core::DescriptorLost();
}

bool Lease::Watch(int fd, uint32_t events, void* whose) {
  epoll_event event{.events = events, .data = {.ptr = whose}};
  return ::epoll_ctl(waiter_.get(), EPOLL_CTL_ADD, fd, &event) == 0;
}

void Lease::Unwatch(int fd) noexcept { (void)::epoll_ctl(waiter_.get(), EPOLL_CTL_DEL, fd, nullptr); }

void Lease::Integrate() {
  for (ControlMessage& message : inbox_.TakeLease()) Take(std::move(message));
  if (leaving_ && running_.count() == 0) Leave();
}

void Lease::Take(ControlMessage message) {
  switch (message.type) {
    case ControlType::kLease:
      lease_ = message.terms.lease;
      break;
    case ControlType::kLeaseWindow:
      AddWindow(std::move(message));
      break;
    case ControlType::kLeaseSocket:
      AddSocket(std::move(message));
      break;
    case ControlType::kLeaseEnd:
      if (message.terms.lease != lease_) {
        // It has left by its own clock: the host need not wait.
        (void)core_.control.Send({.type = ControlType::kLeaseLeft, .terms = {.lease = message.terms.lease}});
        break;
      }
      if (leaving_) break;
      leaving_ = true;
      for (const auto& connection : connections_) connection->CancelAll();
      break;
    default:
      break;
  }
}

/// Whether the window of this message, which may have lain here for as long as a function ran, is still that client's.
bool Lease::IsCurrent(const ControlMessage& message) const {
  return message.terms.lease == lease_ && !leaving_ &&
         message.index < core_.segment.header().windows.committed.load(std::memory_order_acquire) &&
         core_.segment.window(message.index).generation.load(std::memory_order_acquire) == message.generation;
}

void Lease::AddWindow(ControlMessage message) {
  if (!IsCurrent(message)) return TellEnded(message.index, message.generation);
  auto window = core_.MapWindow(message.index, std::move(message.fds[0]), std::move(message.fds[1]));
  if (!window.ok() || !Watch(message.fds[2].get(), EPOLLIN | EPOLLET))
    return TellEnded(message.index, message.generation);
  windows_.Dedicate(message.index, message.generation, std::move(*window), std::move(message.fds[2]));
}

void Lease::AddSocket(ControlMessage message) {
  if (!IsCurrent(message)) return TellEnded(message.index, message.generation);
  const auto copy = [](const UniqueFd& fd) { return UniqueFd(::fcntl(fd.get(), F_DUPFD_CLOEXEC, 3)); };
  window::Handover handover{
      .memfd = copy(message.fds[0]), .submit_event = std::move(message.fds[2]), .complete_event = copy(message.fds[1])};
  auto window = core_.MapWindow(message.index, std::move(message.fds[0]), std::move(message.fds[1]));
  if (!window.ok() || !handover.memfd || !handover.complete_event) return TellEnded(message.index, message.generation);
  handover.window_bytes = (*window)->bytes();
  auto connection = ServedConnection::Make(
      std::move(message.fds[3]), message.index, std::move(handover), core_.segment,
      {.max_contiguous = core_.attach.max_contiguous,
       .default_timeout_ns = core_.attach.default_timeout_ns,
       .checksum = message.text == "checksum"},
      [this](int fd, uint32_t events, void* whose) {
        return Watch(fd, events | EPOLLET, whose) || errno == EEXIST ? Status::Ok() : Status::System("epoll_ctl");
      });
  if (!connection.ok()) return TellEnded(message.index, message.generation);
  windows_.Dedicate(message.index, message.generation, std::move(*window), UniqueFd());
  (*connection)->set_polls(core_.hot_ns.load(std::memory_order_relaxed) != 0);
  connections_.push_back(std::move(*connection));
}

void Lease::TellEnded(uint32_t window, uint32_t generation) {
  (void)core_.control.Send({.type = ControlType::kConnectionEnded, .index = window, .generation = generation});
}

bool Lease::Poll() {
  if (std::exchange(polled_, false)) return true;
  bool progress = false;
  bool ended = false;
  for (const auto& connection : connections_) {
    progress |= connection->Poll();
    ended |= !connection->ended().ok();
  }
  if (ended) Bury();
  return progress;
}

void Lease::Deliver() {
  for (const auto& connection : connections_) connection->Deliver();
}

void Lease::Bury() {
  std::erase_if(connections_, [&](const auto& connection) {
    if (connection->ended().ok()) return false;
    TellEnded(connection->window(), windows_.GenerationOf(connection->window()));
    return true;
  });
}

void Lease::Leave() {
  const Status over(Code::kLeaseClosed, "the lease is over");
  const auto served = std::exchange(connections_, {});
  for (const auto& connection : served) {
    connection->Deliver();
    connection->Goodbye(over);
    TellEnded(connection->window(), windows_.GenerationOf(connection->window()));
  }
  windows_.RetireDedicated();
  leaving_ = false;
  core_.hot_ns.store(0, std::memory_order_relaxed);
  core_.lease.expires_ns.store(0, std::memory_order_release);
  // Before what was served goes: what a device holds takes long to give back.
  (void)core_.control.Send({.type = ControlType::kLeaseLeft, .terms = {.lease = std::exchange(lease_, 0)}});
}

bool Lease::PrepareToSleep() {
  return std::all_of(connections_.begin(), connections_.end(),
                     [](const auto& connection) { return connection->PrepareToSleep(); });
}

bool Lease::Wait(uint64_t deadline_ns) {
  // Edges are told once: to take them is all that is needed.
  std::array<epoll_event, 16> ready;
  const int timeout_ms = deadline_ns == 0 ? 0 : PollTimeoutMs(deadline_ns);
  const int count = ::epoll_wait(waiter_.get(), ready.data(), ready.size(), timeout_ms);
  if (count < 0 && errno != EINTR) Core::DescriptorLost();
  bool own = false;
  for (int i = 0; i < count; ++i) {
    void* const whose = ready[static_cast<size_t>(i)].data.ptr;
    own |= whose == this;
    const bool closed = (ready[static_cast<size_t>(i)].events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;
    for (const auto& connection : connections_) {
      if (connection.get() == whose) connection->SocketHasNews(closed);
    }
  }
  return own;
}

}  // namespace praas::worker
