#include "base/process_info.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include <charconv>
#include <cstring>
#include <string>
#include <string_view>

#include "base/clock.h"

namespace praas {

std::optional<uint64_t> ProcessStartTime(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) return std::nullopt;
  char buffer[2048];
  const ssize_t got = ::read(file.get(), buffer, sizeof buffer);
  if (got <= 0) return std::nullopt;
  std::string_view text(buffer, static_cast<size_t>(got));
  // Field 2, the command, may contain spaces and parentheses: count from the last one.
  const size_t command_end = text.rfind(')');
  if (command_end == std::string_view::npos) return std::nullopt;
  text.remove_prefix(command_end + 1);
  for (int field = 3; field <= 22; ++field) {
    if (text.empty() || text[0] != ' ') return std::nullopt;
    text.remove_prefix(1);
    const size_t end = text.find(' ');
    if (end == std::string_view::npos) return std::nullopt;
    if (field == 22) {
      uint64_t ticks = 0;
      const auto [parsed, error] = std::from_chars(text.data(), text.data() + end, ticks);
      if (error != std::errc() || parsed != text.data() + end) return std::nullopt;
      return ticks;
    }
    text.remove_prefix(end);
  }
  return std::nullopt;
}

Result<UniqueFd> OpenPidFd(pid_t pid) {
  // By number: glibc has a wrapper since 2.36 only. Pidfds are close-on-exec by themselves.
  UniqueFd fd(static_cast<int>(syscall(SYS_pidfd_open, pid, 0)));
  if (!fd) return Status::System("pidfd_open(" + std::to_string(pid) + ")");
  return fd;
}

Status KillAndWait(pid_t pid, uint64_t start_time, uint64_t deadline_ns) {
  if (pid <= 0) return Status::Ok();
  Result<UniqueFd> fd = OpenPidFd(pid);
  if (!fd) return fd.status().sys_errno() == ESRCH ? Status::Ok() : fd.status();
  // Compared after the pidfd is open: from here on it cannot come to mean another process.
  if (ProcessStartTime(pid) != start_time) return Status::Ok();
  if (syscall(SYS_pidfd_send_signal, fd->get(), SIGKILL, nullptr, 0) != 0) {
    if (errno == ESRCH) return Status::Ok();
    return Status::System("pidfd_send_signal(" + std::to_string(pid) + ", SIGKILL)");
  }
  for (;;) {
    pollfd ended{fd->get(), POLLIN, 0};
    const int ready = ::poll(&ended, 1, PollTimeoutMs(deadline_ns));
    if (ready > 0) return Status::Ok();
    if (ready < 0 && errno != EINTR) return Status::System("poll(pidfd)");
    if (NowNs() >= deadline_ns) return Status::System("process " + std::to_string(pid) + " did not end after SIGKILL", ETIMEDOUT);
  }
}

}  // namespace praas
