#pragma once

#include <atomic>
#include <cstdint>
#include <optional>
#include <thread>

#include "dispatch/doorbell.h"
#include "worker/core.h"

namespace praas::worker {

/// Makes a doorbell that cannot be polled (futex) readable through the owner's eventfd: a thread waits in it while the
/// owner sleeps, keeps the bell and signals the owner. Does nothing, without a thread, where the doorbell has an fd.
class DoorbellBridge {
 public:
  explicit DoorbellBridge(Core& core);
  ~DoorbellBridge();

  /// The owner is about to sleep and takes calls.
  void Arm() noexcept;
  /// The owner is awake. A bell that comes after this is passed on to whoever else sleeps.
  void Disarm() noexcept { armed_.store(0, std::memory_order_seq_cst); }
  /// The bell that woke the owner, if one did.
  [[nodiscard]] std::optional<dispatch::Bell> Take() noexcept;

 private:
  void Run() noexcept;

  Core& core_;
  std::atomic<uint32_t> armed_{0};  // futex word
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> bell_{0};  // packed as a credit; 0 = none
  std::thread thread_;
};

}  // namespace praas::worker
