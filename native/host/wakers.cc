#include "host/wakers.h"

#include <sys/eventfd.h>
#include <unistd.h>

namespace praas::host {

Wakers::Wakers() {
  for (auto& fd : fds_) fd.store(-1, std::memory_order_relaxed);
}

Wakers::~Wakers() {
  for (auto& fd : fds_) {
    if (const int open = fd.load(std::memory_order_relaxed); open >= 0) ::close(open);
  }
}

Result<int> Wakers::Fd(uint16_t participant) {
  if (participant >= fds_.size()) return Status(Code::kInternal, "no participant " + std::to_string(participant));
  const int known = fds_[participant].load(std::memory_order_relaxed);
  if (known >= 0) return known;
  const int made = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (made < 0) return Status::System("eventfd");
  fds_[participant].store(made, std::memory_order_release);
  return made;
}

void Wakers::Signal(uint16_t participant) const noexcept {
  if (participant >= fds_.size()) return;
  const int fd = fds_[participant].load(std::memory_order_acquire);
  if (fd < 0) return;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(fd, &one, sizeof one);  // EAGAIN: it is signalled already
}

}  // namespace praas::host
