#include "worker/watchdog.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "base/clock.h"
#include "worker/thread.h"

namespace praas::worker {
namespace {

constexpr uint64_t kHostFirstNs = 5'000'000;
/// What a worker gets to leave a lease that is over, on top of what the host gives it.
constexpr uint64_t kLeaveNs = 40'000'000;

/// To stderr, whose tail the host reports when a worker ends.
void Say(const char* text) noexcept {
  char line[320];
  const int length = std::snprintf(line, sizeof line, "praas: %s\n", text);
  const auto bytes = static_cast<size_t>(std::min<int>(length, sizeof line - 1));
  [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line, bytes);
}

}  // namespace

Watchdog::Watchdog(const Parts& parts, std::function<void()> on_exit)
    : core_(parts.core),
      inbox_(parts.inbox),
      peers_(parts.peers),
      running_(parts.running),
      results_(parts.results),
      on_exit_(std::move(on_exit)),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

void Watchdog::Start() {
  // What the host has sent right behind the attachment, usually what to load: without a thread to be woken first.
  ReadControl();
  thread_ = StartThread("praas-watchdog", [this] { Run(); });
}

Watchdog::~Watchdog() {
  if (!thread_.joinable()) return;
  stop_.store(true);
  Core::Signal(wake_.get());
  thread_.join();
}

void Watchdog::Run() {
  while (!stop_.load()) {
    // Announced before the second look: an invocation published after that look finds the announcement and signals.
    uint64_t until_ns = Scan();
    wake_ns_.store(until_ns, std::memory_order_seq_cst);
    until_ns = std::min(until_ns, Scan());
    Sleep(until_ns);
    wake_ns_.store(0, std::memory_order_seq_cst);
  }
}

void Watchdog::Sleep(uint64_t until_ns) {
  pollfd fds[] = {{wake_.get(), POLLIN, 0}, {core_.control.fd(), POLLIN, 0}};
  const int ready = ::poll(fds, host_lost_ ? 1 : 2, PollTimeoutMs(until_ns));
  if (ready <= 0) return;
  if (fds[0].revents != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = ::read(wake_.get(), &count, sizeof count);
  }
  if (fds[1].revents != 0) ReadControl();
}

uint64_t Watchdog::Scan() {
  const uint64_t now = NowNs();
  uint64_t next = kNoDeadline;
  running_.ForEach([&](Running& record) {
    // Both of one invocation: if the record is reused while it is read, the next one's deadline must not be missed.
    uint64_t word = record.word.load(std::memory_order_acquire);
    uint64_t deadline_ns = 0;
    for (;;) {
      if (word == 0) return;
      deadline_ns = record.deadline_ns.load(std::memory_order_acquire);
      const uint64_t again = record.word.load(std::memory_order_acquire);
      if (again == word) break;
      word = again;
    }
    if (now < deadline_ns) {
      next = std::min(next, deadline_ns);
      return;
    }
    const uint64_t handle = word & ~kRunningFlags;
    const uint64_t kill_ns =
        core_.attach.grace_ns > kNoDeadline - deadline_ns ? kNoDeadline : deadline_ns + core_.attach.grace_ns;
    if ((word & kRunningFlags) == 0) {
      if (!results_.Expire(record, word)) return;
      {
        const std::lock_guard lock(mutex_);
        expired_.push_back(handle);
        has_expired_.store(true, std::memory_order_release);
        fresh_.store(true, std::memory_order_seq_cst);
      }
      core_.SignalOwner();
      next = std::min(next, kill_ns);
    } else if (now < kill_ns) {
      next = std::min(next, kill_ns);
    } else {
      Overran(handle, record.function.load(std::memory_order_relaxed));
    }
  });
  return std::min(next, ScanLease(now));
}

/// A lease ends on time even when the host does not say so, and whatever the function does that runs.
uint64_t Watchdog::ScanLease(uint64_t now) {
  const uint64_t expires_ns = core_.lease.expires_ns.load(std::memory_order_acquire);
  if (expires_ns == 0) return kNoDeadline;
  // The host says so first, unless it is stopped.
  if (now < expires_ns + kHostFirstNs) return expires_ns + kHostFirstNs;
  if (!core_.lease.ending.exchange(true)) {
    inbox_.PutLease({.type = ControlType::kLeaseEnd, .terms = {.lease = core_.lease.id.load()}});
    core_.SignalOwner();
  }
  if (now < expires_ns + kLeaveNs) return expires_ns + kLeaveNs;
  Say("a function still runs after the end of the lease; the worker is killed");
  EndProcess();
  return kNoDeadline;
}

void Watchdog::EndProcess() {
  if (on_exit_) return on_exit_();
  ::kill(::getpid(), SIGKILL);
}

void Watchdog::Overran(uint64_t handle, uint32_t function) {
  if (killed_ == handle) return;
  killed_ = handle;
  // No allocation: the owner may hold the heap's lock.
  char text[160];
  std::snprintf(text, sizeof text, "function %u still runs %llu ms after its deadline; the worker is killed", function,
                static_cast<unsigned long long>(core_.attach.grace_ns / 1'000'000));
  Say(text);
  EndProcess();
}

std::vector<uint64_t> Watchdog::TakeExpired() {
  if (!has_expired_.load(std::memory_order_acquire)) return {};
  const std::lock_guard lock(mutex_);
  has_expired_.store(false, std::memory_order_relaxed);
  return std::exchange(expired_, {});
}

void Watchdog::ReadControl() {
  for (;;) {
    auto message = core_.control.Receive(0);
    if (!message.ok()) {
      // Who waits for what was in it cannot be told, and the next worker has descriptors again.
      if (message.status().sys_errno() == EMFILE) {
        Say("a function has used up the file descriptors of the worker, which cannot go on");
        return EndProcess();
      }
      // A host that sends rubbish is as good as gone: nothing it says later can be relied on.
      if (message.status().code() != Code::kConnectionLost) Say(message.status().message().c_str());
      return HostLost();
    }
    if (!message->has_value()) return;
    Handle(std::move(**message));
  }
}

void Watchdog::Handle(ControlMessage message) {
  switch (message.type) {
    case ControlType::kLoad:
      if (message.index != 0) {
        core_.hot_ns.store(0, std::memory_order_relaxed);  // until it is leased
        core_.dedicated.store(true, std::memory_order_release);
      }
      inbox_.PutLoad(std::move(message.text));
      break;
    case ControlType::kWindow: {
      // A window that cannot be mapped leaves its calls to the client's own deadline.
      auto window = core_.MapWindow(message.index, std::move(message.fds[0]), std::move(message.fds[1]));
      if (window.ok()) inbox_.PutWindow({message.index, message.generation, std::move(*window)});
      break;
    }
    case ControlType::kLease:
      core_.hot_ns.store(message.terms.hot_ns, std::memory_order_relaxed);
      core_.lease.id.store(message.terms.lease, std::memory_order_relaxed);
      core_.lease.ending.store(false, std::memory_order_relaxed);
      core_.lease.expires_ns.store(message.terms.expires_ns, std::memory_order_release);
      [[fallthrough]];
    case ControlType::kLeaseWindow:
    case ControlType::kLeaseSocket:
    case ControlType::kLeaseEnd:
      inbox_.PutLease(std::move(message));
      break;
    case ControlType::kWindowGone:
      inbox_.PutWindow({message.index, message.generation, nullptr});
      break;
    case ControlType::kPeer:
      peers_.Learn(message.index, message.generation, std::move(message.fds[0]));
      break;
    case ControlType::kDrain:
      inbox_.PutDrain();
      break;
    default:
      break;  // a newer host's message that asks for nothing we could refuse
  }
  core_.SignalOwner();
}

void Watchdog::HostLost() {
  host_lost_ = true;
  inbox_.PutHostLost();
  core_.SignalOwner();
  if (on_exit_) return on_exit_();
  ::_exit(0);
}

}  // namespace praas::worker
