#include "base/pidfd.h"

#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "base/clock.h"

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

namespace praas {

Result<std::optional<Pidfd>> Pidfd::Open(const ProcessId& id) {
  if (id.pid <= 0) return Status(Code::kArgumentInvalid, "no process has pid " + std::to_string(id.pid));
  // The descriptor is set close-on-exec by the kernel.
  UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_open, id.pid, 0)));
  if (!fd) {
    if (errno == ESRCH) return std::optional<Pidfd>();
    return Status::System("pidfd_open of " + std::to_string(id.pid) + " (Linux 5.3 or newer is needed)");
  }
  // Identity is compared after opening: from here on the descriptor cannot come to mean another process.
  if (ProcessId::Of(id.pid) != id) return std::optional<Pidfd>();
  return std::optional<Pidfd>(Pidfd(std::move(fd), id));
}

Status Pidfd::Signal(int signal) const {
  if (::syscall(SYS_pidfd_send_signal, fd_.get(), signal, nullptr, 0) != 0 && errno != ESRCH) {
    return Status::System("pidfd_send_signal " + std::to_string(signal) + " to " + std::to_string(id_.pid));
  }
  return Status::Ok();
}

Result<bool> Pidfd::WaitEnd(uint64_t deadline_ns) const {
  for (;;) {
    pollfd entry{fd_.get(), POLLIN, 0};
    const int ready = ::poll(&entry, 1, PollTimeoutMs(deadline_ns));
    if (ready > 0) return true;
    if (ready < 0 && errno != EINTR) return Status::System("poll of a pidfd");
    if (ready == 0 && NowNs() >= deadline_ns) return false;
  }
}

Status KillAndWait(const ProcessId& id, uint64_t deadline_ns) {
  Result<std::optional<Pidfd>> pidfd = Pidfd::Open(id);
  if (!pidfd.ok()) return pidfd.status();
  if (!pidfd->has_value()) return Status::Ok();
  if (Status status = (*pidfd)->Signal(SIGKILL); !status.ok()) return status;
  const Result<bool> ended = (*pidfd)->WaitEnd(deadline_ns);
  if (!ended.ok()) return ended.status();
  if (!ended.value()) {
    return {Code::kSegmentStuck, "process " + std::to_string(id.pid) + " was killed but did not end in time"};
  }
  return Status::Ok();
}

}  // namespace praas
