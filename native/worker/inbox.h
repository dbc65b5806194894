#pragma once

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/unique_fd.h"
#include "window/server_window.h"
#include "worker/control.h"

namespace praas::worker {

/// What the watchdog has read from the control socket, for the owner thread to pick up.
class Inbox {
 public:
  struct Window {
    uint32_t index;
    uint32_t generation;
    std::unique_ptr<window::ServerWindow> window;  // nullptr: gone, unmap it
  };

  // --- watchdog ---
  void PutLoad(std::string application) {
    Put([&] { load_ = std::move(application); });
  }
  void PutWindow(Window window) {
    Put([&] { windows_.push_back(std::move(window)); });
  }
  void PutLease(ControlMessage message) {
    Put([&] { lease_.push_back(std::move(message)); });
  }
  void PutDrain() noexcept {
    draining_.store(true, std::memory_order_seq_cst);
    Put([] {});
  }
  void PutHostLost() noexcept {
    Put([&] { host_lost_ = true; });
  }

  // --- owner ---
  /// One load when there is nothing.
  [[nodiscard]] bool fresh() const noexcept { return fresh_.load(std::memory_order_seq_cst); }
  [[nodiscard]] bool draining() const noexcept { return draining_.load(std::memory_order_acquire); }
  [[nodiscard]] std::vector<Window> TakeWindows() {
    const std::lock_guard lock(mutex_);
    fresh_.store(false, std::memory_order_seq_cst);
    return std::exchange(windows_, {});
  }
  /// What concerns the lease this worker serves, in order.
  [[nodiscard]] std::vector<ControlMessage> TakeLease() {
    const std::lock_guard lock(mutex_);
    return std::exchange(lease_, {});
  }
  /// false: nothing new until the deadline, or the host is gone.
  [[nodiscard]] bool WaitForWindows(uint64_t deadline_ns) {
    return Wait(deadline_ns, [&] { return !windows_.empty(); });
  }
  [[nodiscard]] std::optional<std::string> WaitForLoad(uint64_t deadline_ns) {
    (void)Wait(deadline_ns, [&] { return load_.has_value(); });
    const std::lock_guard lock(mutex_);
    return load_;
  }
  [[nodiscard]] bool host_lost() {
    const std::lock_guard lock(mutex_);
    return host_lost_;
  }

 private:
  template <typename Store>
  void Put(Store store) {
    {
      const std::lock_guard lock(mutex_);
      store();
      fresh_.store(true, std::memory_order_seq_cst);
    }
    const uint64_t one = 1;
    [[maybe_unused]] const ssize_t written = ::write(arrived_.get(), &one, sizeof one);
  }
  template <typename There>
  bool Wait(uint64_t deadline_ns, There there) {
    for (;;) {
      {
        const std::lock_guard lock(mutex_);
        if (there()) return true;
        if (host_lost_) return false;
      }
      const int timeout_ms = PollTimeoutMs(deadline_ns);
      if (timeout_ms == 0) return false;
      pollfd arrived{arrived_.get(), POLLIN, 0};
      if (::poll(&arrived, 1, timeout_ms) > 0) {
        uint64_t count = 0;
        [[maybe_unused]] const ssize_t taken = ::read(arrived_.get(), &count, sizeof count);
      }
    }
  }

  std::mutex mutex_;
  const UniqueFd arrived_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};  // wakes the one thread that waits
  std::atomic<bool> fresh_{false};
  std::atomic<bool> draining_{false};
  bool host_lost_ = false;
  std::optional<std::string> load_;
  std::vector<Window> windows_;
  std::vector<ControlMessage> lease_;
};

}  // namespace praas::worker
