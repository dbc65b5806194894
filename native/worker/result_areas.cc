#include "worker/result_areas.h"

#include <sys/mman.h>

#include <algorithm>
#include <string>

namespace praas::worker {

ResultAreas::~ResultAreas() {
  for (const Area& area : areas_) Unmap(area);
}

void ResultAreas::Unmap(const Area& area) noexcept { ::munmap(area.begin - area.gap(), area.bytes + 2 * area.gap()); }

Result<std::span<std::byte>> ResultAreas::Open(int fd, const void* window, uint64_t offset, uint64_t bytes) {
  Area* found = nullptr;
  for (Area& area : areas_) {
    if (area.window == window && area.offset == offset && area.bytes == bytes) {
      found = &area;
    } else {
      CloseIfUnused(area);
    }
  }
  if (found == nullptr) {
    Result<Area*> mapped = Map(fd, window, offset, bytes);
    if (!mapped.ok()) return mapped.status();
    found = *mapped;
  }
  if (!found->accessible) {
    if (::mprotect(found->begin, bytes, PROT_READ | PROT_WRITE) != 0)
      return Status::System("mprotect of a result area");
    found->accessible = true;
  }
  ++found->users;
  found->used_last = ++clock_;
  return std::span(found->begin, bytes);
}

void ResultAreas::CloseIfUnused(Area& area) noexcept {
  if (!area.accessible || area.users > 0) return;
  // It belongs to somebody else by now.
  ::mprotect(area.begin, area.bytes, PROT_NONE);
  area.accessible = false;
}

void ResultAreas::CloseUnused() noexcept {
  for (Area& area : areas_) CloseIfUnused(area);
}

Result<ResultAreas::Area*> ResultAreas::Map(int fd, const void* window, uint64_t offset, uint64_t bytes) {
  if (areas_.size() >= kMaxAreas) {
    const auto oldest = std::min_element(areas_.begin(), areas_.end(), [](const Area& a, const Area& b) {
      if ((a.users == 0) != (b.users == 0)) return a.users == 0;
      return a.used_last < b.used_last;
    });
    if (oldest->users == 0) {
      Unmap(*oldest);
      areas_.erase(oldest);
    }
  }
  Area area{window, offset, nullptr, bytes, 0, true, 0};
  const uint64_t reserved = bytes + 2 * area.gap();
  void* const range = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (range == MAP_FAILED) {
    return Status::System("mmap of " + std::to_string(reserved) + " bytes of address space for results");
  }
  area.begin = static_cast<std::byte*>(range) + area.gap();
  const int flags = MAP_FIXED | (fd == kPrivate ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
  if (::mmap(area.begin, bytes, PROT_READ | PROT_WRITE, flags, fd, static_cast<off_t>(offset)) == MAP_FAILED) {
    const Status status = Status::System("mmap of a result area of " + std::to_string(bytes) + " bytes");
    ::munmap(range, reserved);
    return status;
  }
  // A forked child must not write where the next call's result will lie.
  ::madvise(area.begin, bytes, MADV_DONTFORK);
  areas_.push_back(area);
  return &areas_.back();
}

void ResultAreas::Close(const std::byte* part) noexcept {
  for (Area& area : areas_) {
    if (part >= area.begin && part <= area.begin + area.bytes && area.users > 0) {
      --area.users;
      return;
    }
  }
}

void ResultAreas::Forget(const void* window) noexcept {
  std::erase_if(areas_, [window](const Area& area) {
    if (area.window != window) return false;
    Unmap(area);
    return true;
  });
}

bool ResultAreas::InGap(const void* address) const noexcept {
  const auto* at = static_cast<const std::byte*>(address);
  return std::any_of(areas_.begin(), areas_.end(), [at](const Area& area) {
    if (area.users == 0 || at < area.begin - area.gap() || at >= area.begin + area.bytes + area.gap()) return false;
    return at < area.begin || at >= area.begin + area.bytes;
  });
}

}  // namespace praas::worker
