#include "window/mapping.h"

#include <sys/mman.h>
#include <unistd.h>

#include <string>

#include "shm/memfd.h"

namespace praas::window {
namespace {

uint64_t PageBytes() noexcept {
  static const uint64_t bytes = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

}  // namespace

Result<Mapping> Mapping::MapSealed(int fd) {
  const Result<uint64_t> size = shm::CheckMemfd(fd);
  if (!size.ok()) return size.status();
  const uint64_t bytes = size.value();
  const uint64_t page_bytes = PageBytes();
  if (bytes == 0 || bytes % page_bytes != 0 || bytes > SIZE_MAX / 2) {
    return Status(Code::kSegmentInvalid, "a window of " + std::to_string(bytes) + " bytes is not a number of pages");
  }
  // The guard pages: reserve the range inaccessible, then map the object into the middle of it.
  void* range = mmap(nullptr, bytes + 2 * page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) {
    return Status::System("mmap of " + std::to_string(bytes) + " bytes of address space for a window");
  }
  std::byte* base = static_cast<std::byte*>(range) + page_bytes;
  if (mmap(base, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
    const Status status = Status::System("mmap of a window of " + std::to_string(bytes) + " bytes");
    munmap(range, bytes + 2 * page_bytes);
    return status;
  }
  madvise(base, bytes, MADV_DONTFORK);
  Mapping mapping;
  mapping.base_ = base;
  mapping.bytes_ = bytes;
  return mapping;
}

void Mapping::Reset() noexcept {
  if (base_ == nullptr) return;
  munmap(base_ - PageBytes(), bytes_ + 2 * PageBytes());
  base_ = nullptr;
  bytes_ = 0;
}

}  // namespace praas::window
