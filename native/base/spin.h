#pragma once

#include <sched.h>
#include <unistd.h>

#include <cstdint>

#include "base/clock.h"

namespace praas {

inline void CpuRelax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#endif
}

/// One step of a polling loop: mostly a pause, every 32nd step a sched_yield. Without the yield a round trip between
/// two spinners on one core takes a scheduler slice (105 µs measured); with it 2.4 µs. While others are found to run
/// when this thread yields, it does so with every step: what it waits for may be what they do.
class SpinYield {
 public:
  SpinYield() noexcept : shared_(shared_steps) {}
  void Step() noexcept {
    if (++steps_ % kStepsPerYield != 0 && shared_ == 0) return CpuRelax();
    const uint64_t before = Ticks();
    sched_yield();
    if (Ticks() - before > kSystemCallsOfAnother * system_call) {
      shared_ = kSharedSteps;
    } else if (shared_ > 0) {
      --shared_;
    } else {
      return;
    }
    shared_steps = shared_;
  }
  [[nodiscard]] uint32_t steps() const noexcept { return steps_; }

 private:
  static constexpr uint32_t kStepsPerYield = 32;
  static constexpr uint32_t kSharedSteps = 64;
  /// A yield takes two to four times as long as the cheapest system call if nobody else runs, and from 12 times as long
  /// (85 in an emulated machine) if somebody does.
  static constexpr uint64_t kSystemCallsOfAnother = 7;
  [[nodiscard]] static uint64_t Ticks() noexcept {
#if defined(__x86_64__)
    return __builtin_ia32_rdtsc();
#else
    return NowNs();
#endif
  }

  [[nodiscard]] static uint64_t MeasureSystemCall() noexcept {
    uint64_t shortest = UINT64_MAX;
    for (int i = 0; i < 4; ++i) {
      const uint64_t before = Ticks();
      static_cast<void>(getppid());
      const uint64_t took = Ticks() - before;
      shortest = took < shortest ? took : shortest;
    }
    return shortest;
  }

  static inline const uint64_t system_call = MeasureSystemCall();
  /// Steps for which this thread goes on yielding each time: what it has found out, for its next loop.
  static inline thread_local uint32_t shared_steps = 0;

  uint32_t steps_ = 0;
  uint32_t shared_;
};

/// Looks at memory that another core is about to write, a few times in quick succession: what a polling loop does
/// between two rounds of everything else it looks at. true: `arrived` was.
template <typename Arrived>
[[nodiscard]] bool LookOut(Arrived arrived) noexcept {
  constexpr uint32_t kLooks = 4;
  for (uint32_t look = 0; look < kLooks; ++look) {
    if (arrived()) return true;
    CpuRelax();
  }
  return false;
}

}  // namespace praas
