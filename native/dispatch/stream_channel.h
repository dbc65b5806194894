#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/result.h"
#include "dispatch/stream_ring.h"
#include "segment/arena.h"
#include "window/pool.h"

/// What host and worker do with a ChunkRing. One producer and one consumer per ring; either may be killed at any
/// instruction.
///
/// Whose a chunk's block is: it is allocated in the name of the *call* (CallBlockOwner), lies in the ring from Publish
/// on and is freed by the consumer before it gives the position back. All blocks of a call whose worker died are thus
/// found by their owner, whether they were published, half consumed or not yet in the ring: `Arena::ReclaimIf` on
/// CallBlockOwner(call), then ResetStream. A consumer killed between freeing and giving back leaves a position that
/// names a free block: nobody may consume a ring after a death, only reclaim it.
namespace praas::dispatch {

/// Owner of every pool block that carries bytes of call `call`: inputs, results and chunks alike.
[[nodiscard]] constexpr segment::BlockOwner CallBlockOwner(uint32_t call) noexcept {
  return {segment::BlockOwner::Kind::kCall, 0, call};
}

enum class StreamEnd : uint32_t { kOpen = 0, kEnded = 1, kAborted = 2 };

/// Empties both directions and binds the ring to a call. Only while nobody else uses it: before the call is posted, or
/// after it has ended and the blocks are reclaimed.
void ResetStream(StreamRing& stream, uint32_t call) noexcept;

/// The filling end of one direction. Chunks go to the pool's input arena in the direction host → worker, to its output
/// arena in the other, so that inputs that nobody reads cannot keep results from being written.
class ChunkProducer {
 public:
  ChunkProducer(ChunkRing& ring, window::Pool& pool, Place arena, uint32_t call) noexcept
      : ring_(&ring), pool_(&pool), arena_(arena), call_(call) {}

  /// Positions free now. 0 when the consumer's `head` makes no sense: a ring that is corrupt takes nothing more.
  [[nodiscard]] uint32_t room() const noexcept;
  [[nodiscard]] StreamEnd end() const noexcept;

  /// Memory for one chunk (1 … kStreamChunkBytes), to be filled in place (by recv) and then published or dropped.
  struct Prepared {
    PayloadRef ref;
    std::span<std::byte> bytes;
  };
  [[nodiscard]] Result<Prepared> Prepare(uint64_t bytes, uint64_t deadline_ns);
  /// For an I/O thread: nullopt when the arena is taken right now.
  [[nodiscard]] std::optional<Result<Prepared>> TryPrepare(uint64_t bytes);
  void Drop(const PayloadRef& ref, uint64_t deadline_ns);

  /// Precondition: room() > 0, end() == kOpen. `ref.bytes` may be less than was prepared, never 0. The consumer is to
  /// be notified by the caller (kNoticeStream).
  void Publish(const PayloadRef& ref) noexcept;

  /// Prepare, copy, Publish for bytes of any length that fit the room as chunks; false: not enough room, nothing
  /// written.
  [[nodiscard]] Result<bool> Write(std::span<const std::byte> bytes, uint64_t deadline_ns);

  void End() noexcept;    // after the last Publish
  void Abort() noexcept;  // the consumer sees it after the chunks already published, or at once if it looks

 private:
  [[nodiscard]] segment::Arena& arena() const noexcept;
  [[nodiscard]] Result<Prepared> Accept(Result<segment::Arena::Allocation> allocation, uint64_t bytes) const;

  ChunkRing* ring_;
  window::Pool* pool_;
  Place arena_;
  uint32_t call_;
};

/// The emptying end of one direction. Descriptors are copied, then validated: a descriptor outside the pool, in the
/// wrong arena, empty or longer than a chunk is kSegmentInvalid, and the stream can only be aborted then.
class ChunkConsumer {
 public:
  ChunkConsumer(ChunkRing& ring, window::Pool& pool, Place arena) noexcept
      : ring_(&ring), pool_(&pool), arena_(arena) {}

  [[nodiscard]] uint32_t available() const noexcept;
  /// kEnded and kAborted only once every chunk published before has been consumed.
  [[nodiscard]] StreamEnd end() const noexcept;
  /// Aborted, no matter how many chunks still lie in the ring.
  [[nodiscard]] bool aborted() const noexcept;

  struct Chunk {
    PayloadRef ref;
    std::span<const std::byte> bytes;  // in place, valid until Release
  };
  /// The next chunk without taking it; nullopt: none there now.
  [[nodiscard]] Result<std::optional<Chunk>> Peek() const;
  /// Frees the block of the chunk Peek showed and gives its position back. The producer is to be notified by the
  /// caller.
  [[nodiscard]] Status Release(const PayloadRef& ref, uint64_t deadline_ns);
  /// For an I/O thread: false when the arena is taken right now.
  [[nodiscard]] bool TryRelease(const PayloadRef& ref);
  /// Releases everything that lies in the ring, for a reader that stops early. Only while the producer is alive or
  /// done.
  [[nodiscard]] Status Discard(uint64_t deadline_ns);

 private:
  [[nodiscard]] segment::Arena& arena() const noexcept;
  void GiveBack() noexcept;

  ChunkRing* ring_;
  window::Pool* pool_;
  Place arena_;
};

}  // namespace praas::dispatch
