#pragma once

#include <unistd.h>

#include <cerrno>
#include <utility>

namespace praas {

/// Owns one file descriptor; -1 means none.
///
/// Open descriptors with O_CLOEXEC (or the call's equivalent): workers are spawned from a process that holds many.
class UniqueFd {
 public:
  explicit UniqueFd(int fd = -1) noexcept : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) Reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { Reset(); }

  /// Closes the descriptor held, if any, and takes `fd`. errno is preserved, so that an error path may destroy
  /// descriptors before it reads errno. Resetting to the descriptor already held keeps it open.
  void Reset(int fd = -1) noexcept {
    if (fd == fd_) return;
    const int saved_errno = errno;
    const int old_fd = std::exchange(fd_, fd);
    // Not repeated on EINTR: Linux has released the number by then, and another thread may own it again.
    if (old_fd >= 0) ::close(old_fd);
    errno = saved_errno;
  }

  /// Closes and reports: 0 or the errno of close(2), which is where some file systems announce a failed write.
  /// Idempotent; the object is empty afterwards either way.
  [[nodiscard]] int Close() noexcept {
    const int fd = std::exchange(fd_, -1);
    return fd >= 0 && ::close(fd) != 0 ? errno : 0;
  }

  /// Gives the descriptor away; the caller closes it.
  [[nodiscard]] int Release() noexcept { return std::exchange(fd_, -1); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] explicit operator bool() const noexcept { return fd_ >= 0; }

 private:
  int fd_;
};

}  // namespace praas
