#include "worker/bridge.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/clock.h"
#include "worker/thread.h"

namespace praas::worker {
namespace {

/// A wait in the doorbell cannot be interrupted; this bounds how long the end of the worker may wait for it.
constexpr uint64_t kSliceNs = 100'000'000;

void FutexWait(std::atomic<uint32_t>& word, uint32_t seen) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0);
}
void FutexWake(std::atomic<uint32_t>& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
}

}  // namespace

DoorbellBridge::DoorbellBridge(Core& core) : core_(core) {
  if (core_.doorbell().fd() < 0) thread_ = StartThread("praas-bell", [this] { Run(); });
}

DoorbellBridge::~DoorbellBridge() {
  if (!thread_.joinable()) return;
  stop_.store(true);
  armed_.store(1);
  FutexWake(armed_);
  thread_.join();
}

void DoorbellBridge::Arm() noexcept {
  if (!thread_.joinable()) return;
  armed_.store(1, std::memory_order_seq_cst);
  FutexWake(armed_);
}

std::optional<dispatch::Bell> DoorbellBridge::Take() noexcept {
  if (bell_.load(std::memory_order_relaxed) == 0) return std::nullopt;
  const uint64_t bell = bell_.exchange(0, std::memory_order_acq_rel);
  if (bell == 0) return std::nullopt;
  return dispatch::UnpackCredit(bell);
}

void DoorbellBridge::Run() noexcept {
  while (!stop_.load()) {
    if (armed_.load(std::memory_order_seq_cst) == 0) {
      FutexWait(armed_, 0);
      continue;
    }
    const auto bell = core_.doorbell().Receive(DeadlineIn(kSliceNs));
    if (!bell) continue;
    uint32_t armed = 1;
    if (!stop_.load() && armed_.compare_exchange_strong(armed, 0)) {
      const uint64_t before = bell_.exchange(dispatch::PackCredit(*bell), std::memory_order_acq_rel);
      core_.SignalOwner();
      if (before != 0) core_.dispatcher->Ring(dispatch::UnpackCredit(before).index);
    } else {
      // The owner has woken for another reason and may be running a function. This thread no longer waits, so the bell
      // goes to somebody else, or stays in the doorbell.
      core_.dispatcher->Ring(bell->index);
    }
  }
}

}  // namespace praas::worker
