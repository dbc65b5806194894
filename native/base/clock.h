#pragma once

#include <cstdint>
#include <ctime>

namespace praas {

/// CLOCK_MONOTONIC in nanoseconds. The same on every OS process of a machine, so deadlines can lie in shared memory.
[[nodiscard]] inline uint64_t NowNs() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

/// CLOCK_REALTIME in nanoseconds since the epoch, for timestamps people read.
[[nodiscard]] inline uint64_t WallNs() noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

/// "No deadline". Only internal bookkeeping uses it; every public wait has a finite default.
inline constexpr uint64_t kNoDeadline = UINT64_MAX;

/// How far CoarseNowNs is behind at most, unless the machine is stopped: timers tick at least a hundred times a second.
inline constexpr uint64_t kTickNs = 10'000'000;

/// CLOCK_MONOTONIC as of the last tick of the timer, for a fifth of what the exact time costs.
[[nodiscard]] inline uint64_t CoarseNowNs() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<uint64_t>(now.tv_nsec);
}

/// In `ns`; of a second and more up to a tick earlier, which spares calls the exact time.
[[nodiscard]] inline uint64_t DeadlineIn(uint64_t ns) noexcept {
  const uint64_t now = ns < 1'000'000'000 ? NowNs() : CoarseNowNs();
  return ns > kNoDeadline - now ? kNoDeadline : now + ns;
}

/// Whether the deadline has passed. The exact time is needed only when it is near.
[[nodiscard]] inline bool HasPassed(uint64_t deadline_ns) noexcept {
  const uint64_t coarse = CoarseNowNs();
  if (deadline_ns > coarse && deadline_ns - coarse > 2 * kTickNs) return false;
  return deadline_ns <= coarse || NowNs() >= deadline_ns;
}

[[nodiscard]] inline timespec ToTimespec(uint64_t ns) noexcept {
  return {static_cast<time_t>(ns / 1'000'000'000u), static_cast<long>(ns % 1'000'000'000u)};
}

/// Milliseconds left until `deadline_ns`, rounded up, for poll(2) and epoll_wait(2); −1 for kNoDeadline.
[[nodiscard]] inline int PollTimeoutMs(uint64_t deadline_ns) noexcept {
  if (deadline_ns == kNoDeadline) return -1;
  const uint64_t now = NowNs();
  if (deadline_ns <= now) return 0;
  const uint64_t ms = (deadline_ns - now + 999'999u) / 1'000'000u;
  return ms > 1'000'000'000u ? 1'000'000'000 : static_cast<int>(ms);
}

}  // namespace praas
