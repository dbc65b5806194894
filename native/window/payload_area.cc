#include "window/payload_area.h"

#include <algorithm>
#include <string>

#include "shm/shared_memory.h"
#include "window/layout.h"

namespace praas::window {

PayloadArea::PayloadArea(int memfd, std::byte* base, uint64_t begin, uint64_t end)
    : memfd_(memfd),
      base_(base),
      begin_(begin),
      end_(end),
      allocator_(begin, end / PayloadAllocator::kGranule * PayloadAllocator::kGranule),
      committed_((end - begin + kCommitBytes - 1) / kCommitBytes) {}

Result<uint64_t> PayloadArea::Allocate(uint64_t bytes) {
  if (bytes > allocator_.capacity()) {
    return Status(Code::kPayloadTooLarge, std::to_string(bytes) + " bytes do not fit the connection's window of " +
                                              std::to_string(end_) + " bytes; raise windowBytes");
  }
  const std::optional<uint64_t> offset = allocator_.Allocate(bytes);
  if (!offset.has_value()) {
    return Status(Code::kBackpressure, "no " + std::to_string(bytes) + " contiguous bytes are free in the window (" +
                                           std::to_string(allocator_.used_bytes()) + " of " +
                                           std::to_string(allocator_.capacity()) + " in use)");
  }
  if (Status status = Commit(*offset, bytes); !status.ok()) {
    allocator_.Release(*offset);
    return status;
  }
  return *offset;
}

Status PayloadArea::Commit(uint64_t offset, uint64_t bytes) {
  if (bytes == 0) return Status::Ok();
  const uint64_t first = (offset - begin_) / kCommitBytes;
  const uint64_t last = (offset + bytes - 1 - begin_) / kCommitBytes;
  for (uint64_t chunk = first; chunk <= last;) {
    if (committed_[chunk]) {
      ++chunk;
      continue;
    }
    uint64_t end = chunk + 1;
    while (end <= last && !committed_[end]) ++end;
    const uint64_t begin_offset = begin_ + chunk * kCommitBytes;
    const uint64_t end_offset = std::min(begin_ + end * kCommitBytes, end_);
    ++counters_.commits;
    if (Status status = shm::Commit(memfd_, begin_offset, end_offset - begin_offset, "client window"); !status.ok()) {
      return status;
    }
    committed_chunks_ += end - chunk;
    for (; chunk < end; ++chunk) committed_[chunk] = true;
  }
  return Status::Ok();
}

std::optional<uint64_t> PayloadArea::OffsetOf(std::span<const std::byte> memory) const noexcept {
  // As integers: comparing pointers into different objects is undefined.
  const auto begin = reinterpret_cast<uintptr_t>(base_);
  const auto address = reinterpret_cast<uintptr_t>(memory.data());
  if (address < begin || !InRange(address - begin, memory.size(), begin_, end_)) return std::nullopt;
  return address - begin;
}

void PayloadArea::Trim(uint64_t keep_bytes) {
  uint64_t kept = 0;
  auto give_back = [&](uint64_t first, uint64_t end) {  // chunks, all committed and free
    const uint64_t begin_offset = begin_ + first * kCommitBytes;
    const uint64_t end_offset = std::min(begin_ + end * kCommitBytes, end_);
    if (!shm::Decommit(memfd_, begin_offset, end_offset - begin_offset).ok()) return;
    ++counters_.trims;
    committed_chunks_ -= end - first;
    for (; first < end; ++first) committed_[first] = false;
  };
  allocator_.ForEachFree([&](uint64_t offset, uint64_t bytes) {
    // Only chunks that lie in the free run as a whole.
    uint64_t chunk = (offset - begin_ + kCommitBytes - 1) / kCommitBytes;
    const uint64_t end = (offset + bytes - begin_) / kCommitBytes;
    while (chunk < end) {
      if (!committed_[chunk]) {
        ++chunk;
        continue;
      }
      if (kept < keep_bytes) {
        kept += kCommitBytes;
        ++chunk;
        continue;
      }
      const uint64_t first = chunk;
      while (chunk < end && committed_[chunk]) ++chunk;
      give_back(first, chunk);
    }
  });
}

}  // namespace praas::window
