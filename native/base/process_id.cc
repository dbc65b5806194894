#include "base/process_id.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "base/unique_fd.h"

namespace praas {
namespace {

struct ProcStat {
  char state = '?';
  uint64_t threads = 0;
  uint64_t start_time = 0;
};

/// Reads a small /proc file without allocating; empty when it is not there.
std::string_view ReadProc(const char* file, pid_t pid, char* buffer, size_t capacity) noexcept {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/%s", static_cast<int>(pid), file);
  const UniqueFd fd(::open(path, O_RDONLY | O_CLOEXEC));
  if (!fd) return {};
  ssize_t got = 0;
  do {
    got = ::read(fd.get(), buffer, capacity);
  } while (got < 0 && errno == EINTR);
  return got > 0 ? std::string_view(buffer, static_cast<size_t>(got)) : std::string_view();
}

/// The number after `label` ("\nLabel:", so that a command name cannot pass for one).
std::optional<int> StatusField(std::string_view text, std::string_view label) noexcept {
  const size_t at = text.find(label);
  if (at == std::string_view::npos) return std::nullopt;
  text.remove_prefix(at + label.size());
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int value = 0;
  if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<ProcStat> ReadStat(pid_t pid) noexcept {
  if (pid <= 0) return std::nullopt;
  char buffer[1024];
  std::string_view text = ReadProc("stat", pid, buffer, sizeof buffer);
  // Field 2, the command name, may itself contain spaces and parentheses; nothing after it does.
  const size_t name_end = text.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= text.size()) return std::nullopt;
  text.remove_prefix(name_end + 2);

  ProcStat stat;
  for (int field = 3; field <= 22; ++field) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) return std::nullopt;
    const std::string_view word = text.substr(0, space);
    text.remove_prefix(space + 1);
    if (field == 3) stat.state = word[0];
    if (field == 20) std::from_chars(word.data(), word.data() + word.size(), stat.threads);
    if (field == 22) std::from_chars(word.data(), word.data() + word.size(), stat.start_time);
  }
  return stat;
}

}  // namespace

ProcessId ProcessId::Self() noexcept { return Of(::getpid()).value_or(ProcessId{::getpid(), 0}); }

std::optional<ProcessId> ProcessId::Of(pid_t pid) noexcept {
  const std::optional<ProcStat> stat = ReadStat(pid);
  if (!stat) return std::nullopt;
  return ProcessId{pid, stat->start_time};
}

std::optional<ProcessId> ProcessId::OfThread(pid_t tid) noexcept {
  char buffer[4096];
  const std::optional<int> pid = StatusField(ReadProc("status", tid, buffer, sizeof buffer), "\nTgid:");
  return pid ? Of(*pid) : std::nullopt;
}

bool ProcessId::Alive() const noexcept {
  const std::optional<ProcStat> stat = ReadStat(pid);
  if (!stat || stat->start_time != start_time) return false;
  // A leader whose other threads go on is a zombie, too; the process then still writes to shared memory.
  const bool ended = stat->state == 'Z' || stat->state == 'X' || stat->state == 'x';
  return !ended || stat->threads > 1;
}

bool ProcessId::Stopped() const noexcept {
  const std::optional<ProcStat> stat = ReadStat(pid);
  return stat && stat->start_time == start_time && (stat->state == 'T' || stat->state == 't');
}

}  // namespace praas
