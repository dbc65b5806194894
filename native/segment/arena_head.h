#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "segment/arena.h"
#include "segment/layout.h"
#include "segment/robust_mutex.h"

namespace praas::segment {

inline constexpr uint32_t kFirstLevels = 44;   // powers of two up to 2^48 bytes
inline constexpr uint32_t kSecondLevels = 32;  // classes per power of two: a block found is at most 1/32 too large

inline constexpr uint64_t kMaxDescriptors = 1ull << 30;  // of one arena

/// How much of an arena's range is backed by memory, in one word so that growing and trimming, which both happen
/// outside the mutex, cannot undo each other: the generation changes with each trim, and nobody grows while one is
/// going on.
struct CommittedWord {
  uint64_t bytes = 0;
  uint16_t generation = 0;  // 15 bits
  bool trimming = false;

  [[nodiscard]] constexpr uint64_t Pack() const noexcept {
    return (trimming ? 1ull << 63 : 0) | static_cast<uint64_t>(generation & 0x7fff) << 48 | bytes;
  }
  [[nodiscard]] static constexpr CommittedWord Unpack(uint64_t word) noexcept {
    return {word & ((1ull << 48) - 1), static_cast<uint16_t>(word >> 48 & 0x7fff), (word >> 63) != 0};
  }
};

/// Per arena, in the meta part. Only `committed` (and the owners in the descriptors) are truth; a rebuild makes all the
/// rest.
struct ArenaHead {
  RobustMutex mutex;
  alignas(64) std::atomic<uint64_t> committed;  // CommittedWord
  uint64_t base_offset;                         // as given to Format
  uint64_t limit_bytes;
  std::atomic<uint32_t> damaged;  // 1: owned descriptors contradict each other; nothing is allocated any more
  std::atomic<uint32_t> rebuilds;

  // Derived; guarded by the mutex. Those that are atomic are read without it by usage().
  uint64_t managed;  // bytes [0, managed) are described by blocks
  uint32_t last;     // the block that ends at `managed`
  uint32_t unused;   // list of unused descriptors (linked by free_next)
  uint32_t unused_count;
  uint32_t fresh;               // descriptors from this index on were never used
  std::atomic<uint64_t> steps;  // list links followed
  std::atomic<uint64_t> used_bytes;
  std::atomic<uint32_t> used_blocks;
  std::atomic<uint32_t> free_blocks;
  std::atomic<uint64_t> first_level;                 // bit f: some list of first level f is not empty
  std::atomic<uint32_t> second_level[kFirstLevels];  // bit s: list [f][s] is not empty
  uint32_t lists[kFirstLevels][kSecondLevels];       // heads
};
static_assert(sizeof(ArenaHead) <= kArenaHeadBytes);

}  // namespace praas::segment
