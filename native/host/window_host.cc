#include "host/window_host.h"

#include <fcntl.h>
#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "host/worker_link.h"
#include "window/intake.h"

namespace praas::host {
namespace {

enum SlotState : uint32_t { kSlotFree = 0, kSlotOpen = 1, kSlotClosing = 2 };

Result<UniqueFd> Duplicate(int fd) {
  UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
  if (!copy) return Status::System("fcntl(F_DUPFD_CLOEXEC)");
  return copy;
}

}  // namespace

WindowHost::WindowHost(EventLoop& loop, Process& process, Calls& calls)
    : offers(loop, process), loop_(loop), process_(process), calls_(calls) {
  offers.hand_over = [this](int socket, uint64_t session, const WindowWanted& wanted) {
    return HandOver(socket, session, wanted);
  };
}

WindowHost::~WindowHost() {
  for (auto& [index, window] : windows_) {
    loop_.Unwatch(window.watch);
    process_.segment->window(index).state.store(kSlotFree);
  }
}

void WindowHost::Listen() {
  offers.Listen();
  if (!offers.available()) return;
  // Without it clients ask for what they could have read.
  if (Result<UniqueFd> published = process_.area->ReadOnlyFd()) published_ = std::move(*published);
}

bool WindowHost::HasWindow(uint64_t session) const {
  return std::any_of(windows_.begin(), windows_.end(),
                     [session](const auto& known) { return known.second.session == session && !known.second.closing; });
}

Result<protocol::UpgradeOffer> WindowHost::Offer(uint64_t session, WindowWanted wanted) {
  if (HasWindow(session)) return Status(Code::kUpgradeFailed, "the session has a window");
  const uint64_t limit = process_.assignment.window_bytes;
  wanted.window_bytes = wanted.window_bytes == 0 ? limit : std::min(wanted.window_bytes, limit);
  Result<std::string> nonce = offers.Make(session, wanted);
  if (!nonce.ok()) return nonce.status();
  return protocol::UpgradeOffer{.socket_path = process_.assignment.socket,
                                .nonce = *std::move(nonce),
                                .window_bytes = wanted.window_bytes,
                                .refused = {}};
}

Result<uint32_t> WindowHost::FreeSlot() {
  segment::Header& header = process_.header();
  // A new slot rather than one used before, while that is cheap: a worker may still have the former window mapped.
  const auto used = static_cast<uint32_t>(windows_.size() + free_.size());
  const bool cheap = used < std::max(header.windows.committed.load(), 64u) && used < segment::kMaxWindows;
  if (!cheap && !free_.empty()) {
    const uint32_t index = free_.front();
    free_.pop_front();
    return index;
  }
  if (used >= segment::kMaxWindows) {
    return Status(Code::kUpgradeFailed, "all " + std::to_string(segment::kMaxWindows) + " windows are in use");
  }
  if (Status status = process_.segment->Commit(header.windows, used + 1); !status.ok()) return status;
  header.windows_used.store(used + 1, std::memory_order_release);
  return used;
}

Status WindowHost::HandOver(int socket, uint64_t session, const WindowWanted& wanted) {
  // By RDMA, since it was offered this one.
  if (HasWindow(session)) return Status(Code::kUpgradeFailed, "the session has a window");
  return OpenWindow(session, wanted, [&](window::ServerWindow::Created& created, uint64_t bytes, uint32_t index) {
    if (wanted.by.worker != 0) {
      if (Status given = GiveToWorker(wanted.by, index, created, UniqueFd(), false); !given.ok()) {
        // Before its socket closes: it would go on to look for another way to this worker.
        end_session(session, given);
        return given;
      }
    }
    return window::Send(socket, created.memfd.get(), created.submit_event.get(), created.complete_event.get(), bytes,
                        wanted.publications ? published_.get() : -1);
  });
}

Result<window::Handover> WindowHost::Open(uint64_t session, int32_t client_pid, uint64_t window_bytes) {
  const WindowWanted wanted{.client_pid = client_pid,
                            .window_bytes = std::min(window_bytes, process_.assignment.window_bytes)};
  window::Handover handover;
  const Status status =
      OpenWindow(session, wanted, [&](window::ServerWindow::Created& created, uint64_t bytes, uint32_t) {
        Result<UniqueFd> submit_event = Duplicate(created.submit_event.get());
        if (!submit_event) return submit_event.status();
        handover.memfd = std::move(created.memfd);
        handover.submit_event = *std::move(submit_event);
        handover.complete_event = std::move(created.complete_event);
        handover.window_bytes = bytes;
        return Status::Ok();
      });
  if (!status.ok()) return status;
  return handover;
}

Status WindowHost::OpenForSocket(uint64_t session, int32_t client_pid, ServedBy by, UniqueFd socket, bool checksum) {
  const WindowWanted wanted{.client_pid = client_pid, .window_bytes = process_.assignment.window_bytes, .by = by};
  return OpenWindow(session, wanted, [&](window::ServerWindow::Created& created, uint64_t, uint32_t index) {
    return GiveToWorker(by, index, created, std::move(socket), checksum);
  });
}

Status WindowHost::GiveToWorker(ServedBy by, uint32_t index, const window::ServerWindow::Created& created,
                                UniqueFd socket, bool checksum) {
  using worker::ControlMessage;
  using worker::ControlType;
  ControlMessage message{.type = socket ? ControlType::kLeaseSocket : ControlType::kLeaseWindow,
                         .index = index,
                         .generation = process_.segment->window(index).generation.load(),
                         .text = checksum ? "checksum" : "",
                         .terms = {.lease = by.lease}};
  for (const int fd : {created.memfd.get(), created.complete_event.get(), created.submit_event.get()}) {
    Result<UniqueFd> copy = Duplicate(fd);
    if (!copy) return copy.status();
    message.fds.push_back(*std::move(copy));
  }
  if (socket) message.fds.push_back(std::move(socket));
  return tell_worker(by.worker, message);
}

std::optional<uint64_t> WindowHost::SessionOf(uint32_t index, uint32_t generation, uint16_t worker) const {
  const auto found = windows_.find(index);
  if (found == windows_.end() || found->second.worker != worker || found->second.closing ||
      process_.segment->window(index).generation.load() != generation) {
    return std::nullopt;
  }
  return found->second.session;
}

Status WindowHost::OpenWindow(uint64_t session, const WindowWanted& wanted, const PassOn& pass_on) {
  Result<window::ServerWindow::Created> created = window::ServerWindow::Create(wanted.window_bytes);
  if (!created) return created.status();
  Result<UniqueFd> memory = Duplicate(created->memfd.get());
  if (!memory) return memory.status();
  Result<UniqueFd> complete = Duplicate(created->complete_event.get());
  if (!complete) return complete.status();
  Result<uint32_t> index = FreeSlot();
  if (!index) return index.status();

  segment::WindowSlot& slot = process_.segment->window(*index);
  slot.generation.fetch_add(1);
  slot.connection_id = session;
  slot.bytes = wanted.window_bytes;
  slot.client_pid = wanted.client_pid;
  slot.calls.store(0);
  slot.poller.store(wanted.by.worker);  // so that no other takes it over
  slot.consumer.store(0);
  Result<std::unique_ptr<window::ServerWindow>> mapped =
      window::ServerWindow::Map(*process_.segment, *index, std::move(*memory), std::move(*complete));
  Status status = mapped ? Status::Ok() : mapped.status();
  EventLoop::WatchId watched = 0;
  if (status.ok() && wanted.by.worker == 0) {
    Result<EventLoop::WatchId> watch =
        loop_.Watch(created->submit_event.get(), EPOLLIN, [this, index = *index](uint32_t) { OnSubmitEvent(index); });
    status = watch.status();
    if (watch) watched = *watch;
  }
  if (status.ok()) status = pass_on(*created, (*mapped)->bytes(), *index);
  if (status.ok()) {
    Window& window = windows_[*index];
    window.mapped = std::move(*mapped);
    window.submit_event = std::move(created->submit_event);
    window.watch = watched;
    window.session = session;
    window.worker = wanted.by.worker;
    slot.state.store(kSlotOpen, std::memory_order_release);
    if (wanted.by.worker == 0) OfferToPoller();
    return status;
  }
  loop_.Unwatch(watched);
  if (wanted.by.worker != 0) {
    // It may have been given the window by then.
    (void)tell_worker(
        wanted.by.worker,
        {.type = worker::ControlType::kWindowGone, .index = *index, .generation = slot.generation.fetch_add(1)});
  }
  free_.push_back(*index);
  return status;
}

void WindowHost::KeepFromOthers(uint16_t dead) {
  for (uint32_t index = 0; index < calls_.capacity(); ++index) {
    const dispatch::CallWord word = calls_.word(index);
    const bool taken = word.state == dispatch::CallState::kClaimed || word.state == dispatch::CallState::kCompleting;
    dispatch::CallEntry& call = calls_.entry(index);
    if (!taken || word.owner != dead || call.origin != dispatch::Origin::kWindow) continue;
    const auto found = windows_.find(call.origin_index);
    if (found != windows_.end() && found->second.worker == dead) call.cancel.store(1, std::memory_order_release);
  }
}

void WindowHost::Reclaim(uint16_t dead) {
  std::vector<uint32_t> again;
  for (auto& [index, window] : windows_) {
    if (window.mapped->Reclaim(dead) && window.worker == 0) again.push_back(index);
    if (window.worker == dead) process_.segment->window(index).poller.store(dead);  // it stays nobody else's
  }
  for (const uint32_t index : again) Consume(index);
  AskForRoomAgain();
  OfferToPoller();
}

Status WindowHost::SendTo(WorkerLink& worker, uint32_t index) const {
  const uint32_t generation =
      index < process_.header().windows.committed.load() ? process_.segment->window(index).generation.load() : 0;
  const auto found = windows_.find(index);
  if (found == windows_.end()) {
    return worker.Send({.type = worker::ControlType::kWindowGone, .index = index, .generation = generation});
  }
  // Lent: the worker gets them also when this process has no number left for a copy.
  const std::array<int, 2> lent{found->second.mapped->memfd(), found->second.mapped->complete_event()};
  return worker.Send({.type = worker::ControlType::kWindow, .index = index, .generation = generation}, lent);
}

void WindowHost::SessionClosed(uint64_t session) {
  offers.Forget(session);
  for (auto& [index, window] : windows_) {
    if (window.session != session || window.closing) continue;
    window.closing = true;
    ++closing_;
    process_.segment->window(index).state.store(kSlotClosing);
    loop_.Unwatch(window.watch);
    window.watch = 0;
  }
  Tick(NowNs());
}

/// Takes back what its client has cancelled and nobody has begun, and tells the workers of the rest.
void WindowHost::CancelAsked(uint32_t index) {
  const auto found = windows_.find(index);
  if (found == windows_.end() || found->second.closing) return;
  Window& window = found->second;
  const uint32_t cancels = window.mapped->cancels();
  if (std::exchange(window.cancels, cancels) == cancels) return;
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || !view->running() || view->origin != dispatch::Origin::kWindow || view->origin_index != index ||
        !window.mapped->cancelled(window::OriginCallIndex(view->origin_call),
                                  window::OriginSequence(view->origin_call))) {
      continue;
    }
    if (process_.dispatcher->Cancel(entry, view->word.generation, Code::kInvocationCancelled)) {
      Fail(entry, Status(Code::kInvocationCancelled, "cancelled before it began"));
    }
  }
}

/// Cancels what is queued or running, drops what is parked. true: nothing of this window is left in the call table.
bool WindowHost::CancelCalls(uint32_t index) {
  bool none = true;
  for (uint32_t entry = 0; entry < calls_.capacity(); ++entry) {
    const std::optional<Calls::View> view = calls_.Look(entry);
    if (!view || view->origin != dispatch::Origin::kWindow || view->origin_index != index) continue;
    dispatch::CallEntry& call = calls_.entry(entry);
    if (view->word.state == dispatch::CallState::kParked &&
        process_.dispatcher->Unpark(entry, static_cast<uint16_t>(index), view->origin_call)) {
      call.input = {};
      calls_.Free(entry);
    } else if (view->running() &&
               process_.dispatcher->Cancel(entry, view->word.generation, Code::kInvocationCancelled)) {
      call.input = {};
      calls_.Free(entry);
    } else {
      none = false;
    }
  }
  return none;
}

void WindowHost::Release(uint32_t index) {
  Window& window = windows_.at(index);
  segment::WindowSlot& slot = process_.segment->window(index);
  slot.poller.store(0);
  const uint32_t generation = slot.generation.fetch_add(1);
  slot.state.store(kSlotFree);
  slot.consumer.store(0);
  tell_workers({.type = worker::ControlType::kWindowGone, .index = index, .generation = generation});
  ForgetConsumer(window);
  if (window.closing) --closing_;
  windows_.erase(index);
  free_.push_back(index);
}

void WindowHost::Tick(uint64_t now_ns) {
  offers.Tick(now_ns);
  std::vector<uint32_t> held;
  for (const auto& [index, window] : windows_) {
    if (!window.held && (window.held_since_ns != 0 || window.closing || window.mapped->HasSubmissions())) {
      held.push_back(index);
    }
  }
  for (const uint32_t index : held) {
    Window& window = windows_.at(index);
    WatchConsumer(window, now_ns);
    if (window.held_since_ns == 0) Consume(index);  // nobody is in the way any more
  }
  if (closing_ == 0) return;
  std::vector<uint32_t> unused;
  for (auto& [index, window] : windows_) {
    if (!window.closing) continue;
    // As its consumer for good the host keeps workers from making new calls of what the client has left in the ring.
    window.held = window.held || window.mapped->TryConsume(dispatch::kHostParticipant);
    const bool none = CancelCalls(index);
    if (window.held && none) unused.push_back(index);
  }
  for (const uint32_t index : unused) Release(index);
}

}  // namespace praas::host
