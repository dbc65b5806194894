#pragma once

#include <atomic>
#include <cstdint>

#include "base/status.h"

namespace praas::verbs {

/// How much memory this OS process may have registered, which pins it: what RLIMIT_MEMLOCK allows, less a share for the
/// queues of the devices' drivers, which count, too; without a limit (or with CAP_IPC_LOCK, which it does not hold for)
/// half of the machine's memory. PRAAS_IB_MEMORY, a number of bytes, says otherwise. Any thread.
class MemoryBudget {
 public:
  explicit MemoryBudget(uint64_t bytes) noexcept : total_(bytes), left_(bytes) {}
  [[nodiscard]] static MemoryBudget& OfThisProcess();

  /// kArgumentInvalid: PRAAS_IB_MEMORY is set and no number.
  [[nodiscard]] static Status CheckEnvironment();

  /// false: not as much is left.
  [[nodiscard]] bool Take(uint64_t bytes) noexcept;
  void Give(uint64_t bytes) noexcept { left_.fetch_add(bytes, std::memory_order_relaxed); }
  [[nodiscard]] uint64_t left() const noexcept { return left_.load(std::memory_order_relaxed); }
  [[nodiscard]] uint64_t total() const noexcept { return total_; }

 private:
  const uint64_t total_;
  std::atomic<uint64_t> left_;
};

}  // namespace praas::verbs
