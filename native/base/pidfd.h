#pragma once

#include <cstdint>
#include <optional>

#include "base/process_id.h"
#include "base/result.h"
#include "base/unique_fd.h"

namespace praas {

/// A descriptor of one OS process (pidfd_open(2)): signals through it never reach a later process with the same pid.
/// Readable (POLLIN) once all threads of the process have ended, for children and for others alike.
class Pidfd {
 public:
  /// nullopt: this very process is gone (its pid may belong to another by now).
  [[nodiscard]] static Result<std::optional<Pidfd>> Open(const ProcessId& id);

  /// A signal that comes too late is no error: the process has ended, which is what SIGKILL is sent for.
  [[nodiscard]] Status Signal(int signal) const;

  /// true: it has ended. false: not until the deadline.
  [[nodiscard]] Result<bool> WaitEnd(uint64_t deadline_ns) const;

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] const ProcessId& id() const noexcept { return id_; }

 private:
  Pidfd(UniqueFd fd, const ProcessId& id) noexcept : fd_(std::move(fd)), id_(id) {}

  UniqueFd fd_;
  ProcessId id_;
};

/// SIGKILL to `id` and the wait for its end: when this returns Ok, the process can no longer write to shared memory.
/// kSegmentStuck when it does not end until the deadline (stuck in the kernel).
[[nodiscard]] Status KillAndWait(const ProcessId& id, uint64_t deadline_ns);

}  // namespace praas
