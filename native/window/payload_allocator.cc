#include "window/payload_allocator.h"

#include <algorithm>
#include <cassert>
#include <iterator>

namespace praas::window {
namespace {

constexpr uint64_t Rounded(uint64_t bytes) noexcept {
  constexpr uint64_t kGranule = PayloadAllocator::kGranule;
  return std::max<uint64_t>((bytes + kGranule - 1) / kGranule, 1) * kGranule;
}

/// Where in a run that begins at `offset` a block of `bytes` bytes begins.
constexpr uint64_t Aligned(uint64_t offset, uint64_t bytes) noexcept {
  const uint64_t alignment = bytes >= PayloadAllocator::kPage ? PayloadAllocator::kPage : PayloadAllocator::kGranule;
  return (offset + alignment - 1) / alignment * alignment;
}

}  // namespace

PayloadAllocator::PayloadAllocator(uint64_t begin, uint64_t end) : begin_(begin), end_(end) {
  assert(begin < end && begin % kGranule == 0 && end % kGranule == 0);
  free_.emplace(begin, end - begin);
  by_size_.emplace(end - begin, begin);
}

PayloadAllocator::FreeRuns::iterator PayloadAllocator::BestFit(uint64_t bytes) const {
  if (bytes > capacity()) return by_size_.end();  // the rounding could overflow
  const uint64_t needed = Rounded(bytes);
  // A run that is a page longer fits wherever it begins, so few are looked at.
  auto run = by_size_.lower_bound({needed, 0});
  while (run != by_size_.end() && Aligned(run->second, needed) + needed > run->second + run->first) ++run;
  return run;
}

bool PayloadAllocator::Fits(uint64_t bytes) const { return BestFit(bytes) != by_size_.end(); }

std::optional<uint64_t> PayloadAllocator::Allocate(uint64_t bytes) {
  const auto fit = BestFit(bytes);
  if (fit == by_size_.end()) return std::nullopt;
  const uint64_t needed = Rounded(bytes);
  const auto [run_bytes, run] = *fit;
  const uint64_t offset = Aligned(run, needed);
  by_size_.erase(fit);
  free_.erase(run);
  for (const auto& [begin, end] : {std::pair(run, offset), std::pair(offset + needed, run + run_bytes)}) {
    if (begin == end) continue;
    free_.emplace(begin, end - begin);
    by_size_.emplace(end - begin, begin);
  }
  used_.emplace(offset, Used{.bytes = needed});
  used_bytes_ += needed;
  return offset;
}

bool PayloadAllocator::Release(uint64_t offset) {
  const auto block = used_.find(offset);
  if (block == used_.end() || block->second.released) return false;
  if (block->second.pins > 0) {
    block->second.released = true;
  } else {
    Free(block);
  }
  return true;
}

std::optional<uint64_t> PayloadAllocator::Find(uint64_t offset, uint64_t bytes) const {
  auto block = used_.upper_bound(offset);
  if (block == used_.begin()) return std::nullopt;
  --block;
  const uint64_t within = offset - block->first;
  if (block->second.released || within > block->second.bytes || bytes > block->second.bytes - within)
    return std::nullopt;
  return block->first;
}

void PayloadAllocator::Pin(uint64_t block) {
  const auto used = used_.find(block);
  assert(used != used_.end() && !used->second.released);
  ++used->second.pins;
}

void PayloadAllocator::Unpin(uint64_t block) {
  const auto used = used_.find(block);
  assert(used != used_.end() && used->second.pins > 0);
  if (--used->second.pins == 0 && used->second.released) Free(used);
}

void PayloadAllocator::Free(UsedBlocks::iterator block) {
  uint64_t offset = block->first;
  uint64_t bytes = block->second.bytes;
  used_bytes_ -= bytes;
  used_.erase(block);
  auto next = free_.lower_bound(offset);
  if (next != free_.end() && next->first == offset + bytes) {
    bytes += next->second;
    by_size_.erase({next->second, next->first});
    next = free_.erase(next);
  }
  if (next != free_.begin()) {
    const auto previous = std::prev(next);
    if (previous->first + previous->second == offset) {
      offset = previous->first;
      bytes += previous->second;
      by_size_.erase({previous->second, previous->first});
      free_.erase(previous);
    }
  }
  free_.emplace(offset, bytes);
  by_size_.emplace(bytes, offset);
}

void PayloadAllocator::ForEachFree(const std::function<void(uint64_t offset, uint64_t bytes)>& visit) const {
  for (const auto& [offset, bytes] : free_) visit(offset, bytes);
}

}  // namespace praas::window
