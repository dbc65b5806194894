#include "shm/mapping.h"

#include <sys/mman.h>

#include <cerrno>
#include <string>

namespace praas::shm {

Result<Mapping> Mapping::Map(int fd, uint64_t offset, uint64_t bytes, Access access) {
  if (bytes == 0) return Status(Code::kArgumentInvalid, "a mapping has at least one byte");
  const int protection = access == Access::kReadOnly ? PROT_READ : PROT_READ | PROT_WRITE;
  void* address = ::mmap(nullptr, bytes, protection, MAP_SHARED | MAP_NORESERVE, fd, static_cast<off_t>(offset));
  if (address == MAP_FAILED) {
    const int error = errno;
    std::string what = "mmap of " + std::to_string(bytes >> 20) + " MiB";
    if (error == ENOMEM) what += " (address space limit? see `ulimit -v`)";
    return Status::System(what, error);
  }
  return Mapping(std::span(static_cast<std::byte*>(address), bytes));
}

void Mapping::Reset() noexcept {
  if (bytes_.data() == nullptr) return;
  const int saved_errno = errno;
  ::munmap(bytes_.data(), bytes_.size());
  errno = saved_errno;
  bytes_ = {};
}

}  // namespace praas::shm
