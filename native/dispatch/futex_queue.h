#pragma once

#include <atomic>
#include <cstdint>

namespace praas::dispatch {

inline constexpr uint32_t kFutexBells = 16;

/// Where bells wait when there is no message queue to be had. A slot holds a packed bell or 0; every step is one atomic
/// operation, so a participant killed anywhere leaves at worst a bell too few, which the host makes good after a death.
struct FutexQueue {
  alignas(64) std::atomic<uint32_t> rung;  // futex word: bells ever rung
  std::atomic<uint32_t> waiters;           // sleepers in FUTEX_WAIT; too high after a death, which costs a syscall
  alignas(64) std::atomic<uint64_t> bells[kFutexBells];
};
static_assert(sizeof(FutexQueue) == 192);

}  // namespace praas::dispatch
