#pragma once

#include <cstdint>

#include "base/clock.h"

#if defined(__x86_64__)
#include <x86intrin.h>

#include <cstdio>
#include <cstring>
#endif

namespace praas {

/// NowNs for a third of its cost, for what is measured with every call. It counts on with the processor's counter from
/// a reading of the clock that is at most a millisecond old, so it is off by nanoseconds, and may step back by as many.
/// Where the kernel does not trust that counter, or on other processors, it is NowNs. One thread.
class TickClock {
 public:
  [[nodiscard]] uint64_t Now() noexcept {
#if defined(__x86_64__)
    if (trusted_) {
      const uint64_t ticks = __rdtsc() - anchor_ticks_;
      if (ticks < valid_ticks_) return anchor_ns_ + (ticks * ns_per_tick_ >> kShift);
      return Anchor();
    }
#endif
    return NowNs();
  }

#if defined(__x86_64__)
 private:
  static constexpr uint32_t kShift = 32;
  static constexpr uint64_t kValidNs = 1'000'000;
  /// The rate is taken over at least this time; until then every reading is the clock's. And over the last second or
  /// two only, so that it is right again soon after the machine was moved or has slept.
  static constexpr uint64_t kCalibrationNs = 10'000'000;
  static constexpr uint64_t kForgetNs = 1'000'000'000;

  [[nodiscard]] static bool KernelTrustsCounter() noexcept {
    char name[16] = {};
    std::FILE* const file = std::fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource", "re");
    if (file == nullptr) return false;
    const bool read = std::fgets(name, sizeof name, file) != nullptr;
    std::fclose(file);
    return read && std::strcmp(name, "tsc\n") == 0;
  }
  [[nodiscard]] uint64_t Anchor() noexcept {
    const uint64_t now_ns = NowNs();
    anchor_ticks_ = __rdtsc();
    anchor_ns_ = now_ns;
    if (first_ns_ == 0) {
      first_ns_ = anchor_ns_;
      first_ticks_ = anchor_ticks_;
    } else if (anchor_ns_ - first_ns_ >= kCalibrationNs && anchor_ticks_ > first_ticks_) {
      // In floating point: the products do not fit 64 bits.
      const double rate =
          static_cast<double>(anchor_ns_ - first_ns_) / static_cast<double>(anchor_ticks_ - first_ticks_);
      ns_per_tick_ = static_cast<uint64_t>(rate * static_cast<double>(uint64_t{1} << kShift));
      valid_ticks_ = static_cast<uint64_t>(static_cast<double>(kValidNs) / rate);
      if (anchor_ns_ - first_ns_ >= kForgetNs) {
        first_ns_ = anchor_ns_;
        first_ticks_ = anchor_ticks_;
      }
    }
    return now_ns;
  }

  const bool trusted_ = KernelTrustsCounter();
  uint64_t anchor_ticks_ = 0, anchor_ns_ = 0;
  uint64_t first_ticks_ = 0, first_ns_ = 0;
  uint64_t ns_per_tick_ = 0;  // shifted left by kShift
  uint64_t valid_ticks_ = 0;
#endif
};

}  // namespace praas
