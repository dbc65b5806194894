#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "segment/layout.h"
#include "segment/robust_mutex.h"

namespace praas::segment {

class Segment;

/// Who is responsible for a block. A dead participant's blocks are reclaimed by `Arena::ReclaimOwnedBy`.
struct BlockOwner {
  enum class Kind : uint16_t { kFree = 0, kParticipant = 1, kCall = 2, kState = 3 };
  Kind kind = Kind::kFree;
  uint16_t participant = 0;  // kParticipant: the holder. kCall: unused
  uint32_t id = 0;           // kCall: call entry index. kState: key index
};

/// Descriptor of one run of bytes, used or free. Lies in the meta part, so nothing JavaScript can reach describes memory.
/// 64 bytes; `value_*` belong to the state store and are written before the block is published.
struct Block {
  uint64_t offset;
  uint64_t bytes;       // capacity, a multiple of kGranule
  uint32_t previous;    // physical neighbours, 0 = none (block indices are 1-based)
  uint32_t next;
  uint32_t free_previous;  // free list links
  uint32_t free_next;
  BlockOwner owner;
  uint64_t value_bytes;
  uint64_t value_version;
  uint64_t value_wall_ns;
};
static_assert(sizeof(Block) == 64);

/// A two-level segregated fit (TLSF) allocator over a range of bytes: allocation and release in constant time, neighbours
/// merged at once, so fragmentation stays bounded and the cost does not grow with age. Descriptors are out of band.
///
/// One robust mutex per arena guards it. When its owner died inside, the next locker rebuilds all lists and neighbour
/// links from the descriptors that are *owned* (the truth) before it goes on; the rebuild may itself be interrupted.
/// Growth (posix_fallocate) happens outside the mutex.
class Arena {
 public:
  static constexpr uint64_t kGranule = 64;

  /// Binds arena `which` (0 segment data, 1 pool inputs, 2 pool outputs) of `segment`. `backing_fd` is what growth commits:
  /// the segment for 0, the pool memfd for 1 and 2. `base_offset`: where the arena's bytes begin within that object.
  Arena(const Segment& segment, uint32_t which, int backing_fd, uint64_t base_offset, uint64_t limit_bytes);

  /// Formats an empty arena (host only, at creation or, for the pool, at attach).
  [[nodiscard]] Status Format();

  struct Allocation {
    uint32_t block;   // 1-based
    uint64_t offset;  // within the object: base_offset is included
    uint64_t bytes;   // capacity ≥ what was asked
  };
  /// At least `bytes` (≥ 1) bytes, 64-byte aligned, contents undefined. kStateMemory when the limit or the host's memory is
  /// reached, kSegmentStuck when the mutex was not had until `deadline_ns`.
  [[nodiscard]] Result<Allocation> Allocate(uint64_t bytes, BlockOwner owner, uint64_t deadline_ns);
  /// For an I/O thread: nullopt when the mutex is taken right now or memory would first have to be committed more than once.
  [[nodiscard]] std::optional<Result<Allocation>> TryAllocate(uint64_t bytes, BlockOwner owner);

  [[nodiscard]] Status Free(uint32_t block, uint64_t deadline_ns);
  [[nodiscard]] bool TryFree(uint32_t block);  // false: mutex taken, try later

  /// Hands a block over. Plain store under the mutex; constant time.
  [[nodiscard]] Status SetOwner(uint32_t block, BlockOwner owner, uint64_t deadline_ns);

  /// Frees every block whose owner satisfies `dead`. Returns how many.
  [[nodiscard]] Result<uint32_t> ReclaimIf(const std::function<bool(const BlockOwner&)>& dead, uint64_t deadline_ns);

  /// Gives committed memory above the last used block back to the system (FALLOC_FL_PUNCH_HOLE). Host only, when idle.
  [[nodiscard]] Status Trim(uint64_t keep_bytes);

  [[nodiscard]] const Block& block(uint32_t index) const noexcept;
  [[nodiscard]] Block& mutable_block(uint32_t index) noexcept;

  struct Usage {
    uint64_t limit_bytes, committed_bytes, used_bytes, largest_free_bytes;
    uint32_t used_blocks, free_blocks;
  };
  [[nodiscard]] Usage usage() const noexcept;

  /// Checks every invariant; returns one sentence per violation (empty: sound). Takes the mutex.
  [[nodiscard]] std::vector<std::string> Check() const;

 private:
  // implementation-defined
};

}  // namespace praas::segment
