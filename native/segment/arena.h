#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "segment/layout.h"
#include "segment/robust_mutex.h"

namespace praas::segment {

class Segment;
struct ArenaHead;

/// Who is responsible for a block. A dead participant's blocks are reclaimed by `Arena::ReclaimIf`.
struct alignas(8) BlockOwner {
  enum class Kind : uint16_t { kFree = 0, kParticipant = 1, kCall = 2, kState = 3 };
  Kind kind = Kind::kFree;
  uint16_t participant = 0;  // kParticipant: the holder. kCall: unused
  uint32_t id = 0;           // kCall: call entry index. kState: key index

  friend bool operator==(const BlockOwner&, const BlockOwner&) = default;
};
static_assert(sizeof(BlockOwner) == 8);

/// Descriptor of one run of bytes, used or free. Lies in the meta part, so nothing JavaScript can reach describes
/// memory. 64 bytes; `value_*` belong to the state store and are written before the block is published.
///
/// `owner` decides what the others mean and changes by one atomic store. While it names somebody, offset and bytes are
/// immutable and true; while it is kFree, everything else is derived and may be half-written.
struct Block {
  uint64_t offset;    // within the object
  uint64_t bytes;     // capacity, a multiple of kGranule; 0 = the descriptor is unused
  uint32_t previous;  // physical neighbours, 0 = none (block indices are 1-based)
  uint32_t next;
  uint32_t free_previous;  // free list links
  uint32_t free_next;
  BlockOwner owner;
  uint64_t value_bytes;
  uint64_t value_version;
  uint64_t value_wall_ns;
};
static_assert(sizeof(Block) == 64);

/// A two-level segregated fit (TLSF; Masmano et al., ECRTS'04) allocator over a range of bytes: allocation and release
/// in constant time, neighbours merged at once, so fragmentation stays bounded and the cost does not grow with age.
/// Descriptors are out of band.
///
/// One robust mutex per arena guards it. When its owner died inside, the next locker rebuilds all lists and neighbour
/// links from the descriptors that are *owned* (the truth) before it goes on; the rebuild may itself be interrupted.
/// Growth (fallocate) happens outside the mutex. Cheap to construct and to copy; thread-safe.
class Arena {
 public:
  static constexpr uint64_t kGranule = 64;

  /// Binds arena `which` (0 segment data, 1 pool inputs, 2 pool outputs) of `segment`, whose mapping must outlive it
  /// (the Segment object itself may be moved meanwhile). `backing_fd` is what growth commits: the segment for 0, the
  /// pool memfd for 1 and 2. `base_offset`: where the arena's bytes begin within that object. `self` is noted while the
  /// mutex is held, so that a stopped owner can be told.
  Arena(const Segment& segment, uint32_t which, int backing_fd, uint64_t base_offset, uint64_t limit_bytes,
        uint16_t self = kUnknownParticipant);

  /// Arena 0 over the segment's data part.
  [[nodiscard]] static Arena Data(const Segment& segment, uint16_t self);

  /// Formats an empty arena (host only, at creation or, for the pool, at attach).
  [[nodiscard]] Status Format();

  /// Host, after attaching to a dead host's segment and before any worker starts: believes nothing but owned
  /// descriptors, checks each of them and rebuilds the rest. kSegmentInvalid when they contradict each other.
  [[nodiscard]] Status Recover();

  struct Allocation {
    uint32_t block;   // 1-based
    uint64_t offset;  // within the object: base_offset is included
    uint64_t bytes;   // capacity ≥ what was asked
  };
  /// At least `bytes` (≥ 1) bytes, 64-byte aligned, contents undefined. kStateMemory when the limit or the host's
  /// memory is reached, kSegmentStuck when the mutex was not had until `deadline_ns`.
  [[nodiscard]] Result<Allocation> Allocate(uint64_t bytes, BlockOwner owner, uint64_t deadline_ns);
  /// For an I/O thread: nullopt when the mutex is taken right now or memory would first have to be committed more than
  /// once.
  [[nodiscard]] std::optional<Result<Allocation>> TryAllocate(uint64_t bytes, BlockOwner owner);

  /// kArgumentInvalid when `block` names no used block (freed twice).
  [[nodiscard]] Status Free(uint32_t block, uint64_t deadline_ns);
  [[nodiscard]] bool TryFree(uint32_t block);  // false: mutex taken, try later

  /// Hands a block over. One atomic store under the mutex; constant time.
  [[nodiscard]] Status SetOwner(uint32_t block, BlockOwner owner, uint64_t deadline_ns);

  /// Frees every used block that `dead` says so of. Returns how many. Runs in bounded sections: blocks allocated
  /// meanwhile may or may not be asked for. `dead` is called under the mutex and must not use the arena.
  [[nodiscard]] Result<uint32_t> ReclaimIf(const std::function<bool(uint32_t block, const Block&)>& dead,
                                           uint64_t deadline_ns);

  /// Gives committed memory above the last used block back to the system (FALLOC_FL_PUNCH_HOLE), down to `keep_bytes`.
  /// Host only, when idle; does nothing while somebody else is at work.
  [[nodiscard]] Status Trim(uint64_t keep_bytes);

  [[nodiscard]] const Block& block(uint32_t index) const noexcept { return blocks_[index - 1]; }
  [[nodiscard]] Block& mutable_block(uint32_t index) noexcept { return blocks_[index - 1]; }
  [[nodiscard]] BlockOwner owner(uint32_t index) const noexcept {
    return std::atomic_ref<BlockOwner>(blocks_[index - 1].owner).load(std::memory_order_acquire);
  }
  /// Whether `index` names a descriptor that exists; for indices read from shared memory.
  [[nodiscard]] bool IsBlock(uint32_t index) const noexcept;

  struct Usage {
    uint64_t limit_bytes, committed_bytes, used_bytes;
    uint64_t largest_free_bytes;  // of committed memory, rounded down to a size class (at most 1/32 too small)
    uint32_t used_blocks, free_blocks;
    uint32_t rebuilds;    // after a death inside
    uint64_t list_steps;  // list links followed so far: the measure of constant time
  };
  /// Without the mutex: the numbers may belong to different moments.
  [[nodiscard]] Usage usage() const noexcept;

  /// Checks every invariant; returns one sentence per violation (empty: sound). Takes the mutex; on a read-only mapping
  /// it instead looks until nobody was inside meanwhile, and finds nothing while a rebuild is due.
  [[nodiscard]] std::vector<std::string> Check() const;

  [[nodiscard]] const RobustMutex& mutex() const noexcept;  // for StuckWatch

 private:
  enum class Shortage { kNone, kMemory, kDescriptors };
  struct Attempt {
    Shortage shortage = Shortage::kNone;
    uint64_t needed_end = 0;  // kMemory: how far memory has to be committed
    Allocation allocation{};
  };

  [[nodiscard]] Status Enter(LockOutcome outcome) const;
  [[nodiscard]] Status Rebuild() const;
  [[nodiscard]] Attempt AllocateLocked(uint64_t bytes, BlockOwner owner);
  void FreeLocked(uint32_t block);
  [[nodiscard]] Status CheckRequest(uint64_t bytes, BlockOwner owner) const;
  [[nodiscard]] Status MakeRoom(const Attempt& attempt, uint64_t bytes);
  [[nodiscard]] Status Grow(uint64_t end);

  ArenaHead* head_;
  Region* region_;
  Block* blocks_;
  int segment_fd_;
  int backing_fd_;
  uint64_t base_offset_;
  uint64_t limit_bytes_;
  const char* name_;
  uint16_t self_;
  bool writable_;
};

}  // namespace praas::segment
