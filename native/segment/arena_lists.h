#pragma once

#include <cstdint>

#include "segment/arena_head.h"

namespace praas::segment {

/// Size class of a block.
struct SizeClass {
  uint32_t first;
  uint32_t second;
};

/// Class a block of `bytes` (a multiple of the granule) is filed under.
[[nodiscard]] SizeClass ClassOf(uint64_t bytes) noexcept;
/// Smallest size filed under `size_class`.
[[nodiscard]] uint64_t LowestOf(SizeClass size_class) noexcept;

/// The free lists, the list of unused descriptors and the neighbour links of one arena, each operation in constant
/// time. The caller holds the mutex. Everything here is derived data: being killed in the middle costs a rebuild, no
/// more.
class ArenaLists {
 public:
  ArenaLists(ArenaHead& head, Block* blocks) noexcept : head_(head), blocks_(blocks) {}

  [[nodiscard]] Block& At(uint32_t index) const noexcept { return blocks_[index - 1]; }
  [[nodiscard]] static bool IsFree(const Block& block) noexcept { return block.owner.kind == BlockOwner::Kind::kFree; }

  void Clear() noexcept;

  void Insert(uint32_t index) noexcept;
  void Remove(uint32_t index) noexcept;
  /// A free block of at least `bytes`; 0 = none. Stays in its list.
  [[nodiscard]] uint32_t Find(uint64_t bytes) noexcept;
  [[nodiscard]] uint64_t LargestFree() const noexcept;

  /// Descriptors that can be taken, `committed` of them being backed by memory.
  [[nodiscard]] uint32_t Spare(uint32_t committed) const noexcept;
  [[nodiscard]] uint32_t TakeDescriptor() noexcept;  // precondition: Spare() > 0
  void GiveDescriptor(uint32_t index) noexcept;

  /// Makes a free, unfiled block of the bytes behind `head.managed` up to `end` (or lengthens the last one) and files
  /// it. Precondition: a spare descriptor.
  void AppendFree(uint64_t end) noexcept;
  /// Cuts a free, unfiled block down to `bytes`; the rest becomes a free block. Precondition: a spare descriptor.
  void Split(uint32_t index, uint64_t bytes) noexcept;
  /// Joins a free, unfiled block with its free neighbours and files the result.
  void MergeAndInsert(uint32_t index) noexcept;

 private:
  void Absorb(uint32_t into, uint32_t right) noexcept;
  void Step() noexcept {
    head_.steps.store(head_.steps.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  ArenaHead& head_;
  Block* blocks_;
};

}  // namespace praas::segment
