#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>

#include "base/result.h"
#include "base/unique_fd.h"

namespace praas {

/// Field 22 of /proc/PID/stat: when it started, in clock ticks since boot. With the pid it names one OS process for good,
/// because pids are used again. nullopt when there is no such process.
[[nodiscard]] std::optional<uint64_t> ProcessStartTime(pid_t pid);

/// A pidfd (readable when the process ends). System status ESRCH when there is no such process.
[[nodiscard]] Result<UniqueFd> OpenPidFd(pid_t pid);

/// Kills the process named by pid and start time, if it still is that one, and waits until it has ended (it may stay a
/// zombie until its parent looks). Ok when it was gone already. kSystem with ETIMEDOUT when it did not end in time, which
/// means it hangs in the kernel.
[[nodiscard]] Status KillAndWait(pid_t pid, uint64_t start_time, uint64_t deadline_ns);

}  // namespace praas
