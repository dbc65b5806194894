#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

namespace praas {

/// Names one OS process for good: pids are reused, a pid with its start time (/proc/PID/stat field 22, clock ticks
/// since boot) is not.
struct ProcessId {
  pid_t pid = 0;
  uint64_t start_time = 0;

  friend bool operator==(const ProcessId&, const ProcessId&) = default;

  [[nodiscard]] static ProcessId Self() noexcept;
  /// nullopt: no process has this pid now. A process that has ended but was not reaped still has its pid.
  [[nodiscard]] static std::optional<ProcessId> Of(pid_t pid) noexcept;
  /// The process that thread `tid` belongs to.
  [[nodiscard]] static std::optional<ProcessId> OfThread(pid_t tid) noexcept;

  /// Whether this very process still executes. A zombie (all threads ended, not reaped) does not.
  [[nodiscard]] bool Alive() const noexcept;
  /// Whether it exists but is stopped (SIGSTOP, a debugger).
  [[nodiscard]] bool Stopped() const noexcept;
};

}  // namespace praas
