#include "shm/memfd.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "shm/shared_memory.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

namespace praas::shm {

Result<UniqueFd> CreateMemfd(const char* name, uint64_t bytes, Sealing sealing) {
  // MFD_NOEXEC_SEAL is demanded where vm.memfd_noexec=2 and unknown before Linux 6.3.
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL));
  if (!fd && errno == EINVAL) fd.Reset(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) return Status::System("memfd_create");
  if (Status status = Resize(fd.get(), bytes); !status.ok()) return status.WithContext(name);

  const int seals = F_SEAL_SHRINK | F_SEAL_SEAL | (sealing == Sealing::kFixed ? F_SEAL_GROW : 0);
  if (::fcntl(fd.get(), F_ADD_SEALS, seals) != 0) return Status::System("fcntl(F_ADD_SEALS)");
  return fd;
}

Result<uint64_t> CheckMemfd(int fd) {
  const int seals = ::fcntl(fd, F_GET_SEALS);
  if (seals < 0) return Status(Code::kSegmentInvalid, "the descriptor received is no memfd", errno);
  if ((seals & F_SEAL_SHRINK) == 0 || (seals & F_SEAL_SEAL) == 0) {
    return Status(Code::kSegmentInvalid, "the memfd received is not sealed against shrinking");
  }
  // After the seals, so that the size cannot become smaller than what is returned.
  struct stat info {};
  if (::fstat(fd, &info) != 0) return Status::System("fstat of a memfd");
  return static_cast<uint64_t>(info.st_size);
}

bool IsNoMemfd(int sys_errno) noexcept {
  return sys_errno == EBADF || sys_errno == EINVAL || sys_errno == ESPIPE || sys_errno == ENODEV || sys_errno == EACCES;
}

bool ReadAll(int fd, uint64_t offset, std::span<std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t got = ::pread(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = EBADF;  // a shorter file: somebody else's, which has the number of one that was closed
    if (got <= 0) return false;
    offset += static_cast<uint64_t>(got);
    bytes = bytes.subspan(static_cast<size_t>(got));
  }
  return true;
}

bool WriteAll(int fd, uint64_t offset, std::span<const std::byte> bytes) noexcept {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    offset += static_cast<uint64_t>(written);
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return true;
}

}  // namespace praas::shm
