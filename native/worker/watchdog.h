#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "base/unique_fd.h"
#include "worker/core.h"
#include "worker/inbox.h"
#include "worker/peers.h"
#include "worker/results.h"
#include "worker/running.h"

namespace praas::worker {

/// The worker's second thread, which works even when the owner thread never returns from user code. It
///   - reads the control socket and ends the process when the host is gone,
///   - answers invocations whose deadline has passed, and
///   - kills the process when a function still runs `grace_ns` after that.
class Watchdog {
 public:
  struct Parts {
    Core& core;
    Inbox& inbox;
    Peers& peers;
    RunningTable& running;
    Results& results;
  };
  /// `on_exit` replaces the end of the process (tests); nullptr: _exit(0) when the host is gone, SIGKILL after the
  /// grace time.
  Watchdog(const Parts& parts, std::function<void()> on_exit);
  ~Watchdog();
  void Start();

  /// Owner: an invocation with this deadline has been published. One load, unless the watchdog sleeps for too long.
  void Watch(uint64_t deadline_ns) noexcept {
    if (deadline_ns < wake_ns_.load(std::memory_order_seq_cst)) Core::Signal(wake_.get());
  }
  /// Owner: handles of invocations the watchdog has ended or found overdue since the last call.
  [[nodiscard]] std::vector<uint64_t> TakeExpired();
  /// Something has expired since the last TakeFresh: a reason not to sleep, once.
  [[nodiscard]] bool fresh() const noexcept { return fresh_.load(std::memory_order_seq_cst); }
  [[nodiscard]] bool TakeFresh() noexcept { return fresh() && fresh_.exchange(false, std::memory_order_seq_cst); }

 private:
  void Run();
  /// Deals with what is due and returns when to look again.
  [[nodiscard]] uint64_t Scan();
  [[nodiscard]] uint64_t ScanLease(uint64_t now);
  void EndProcess();
  void Sleep(uint64_t until_ns);
  void ReadControl();
  void Handle(ControlMessage message);
  void HostLost();
  void Overran(uint64_t handle, uint32_t function);

  Core& core_;
  Inbox& inbox_;
  Peers& peers_;
  RunningTable& running_;
  Results& results_;
  const std::function<void()> on_exit_;
  const UniqueFd wake_;
  std::atomic<uint64_t> wake_ns_{0};  // when it looks again by itself
  std::atomic<bool> stop_{false};
  bool host_lost_ = false;
  uint64_t killed_ = 0;  // handle for which on_exit was called
  std::mutex mutex_;     // expired_
  std::vector<uint64_t> expired_;
  std::atomic<bool> has_expired_{false};
  std::atomic<bool> fresh_{false};
  std::thread thread_;
};

}  // namespace praas::worker
