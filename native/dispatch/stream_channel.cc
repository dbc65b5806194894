#include "dispatch/stream_channel.h"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>
#include <utility>

namespace praas::dispatch {

namespace {

/// Positions in use, kStreamChunks + 1 when the two counters contradict each other.
uint32_t Used(uint32_t tail, uint32_t head) noexcept {
  const uint32_t used = tail - head;
  return used <= kStreamChunks ? used : kStreamChunks + 1;
}

segment::Arena& ArenaOf(window::Pool& pool, Place place) noexcept {
  return place == Place::kPoolInput ? pool.inputs() : pool.outputs();
}

void ResetRing(ChunkRing& ring) noexcept {
  ring.tail.store(0, std::memory_order_relaxed);
  ring.head.store(0, std::memory_order_relaxed);
  ring.end.store(0, std::memory_order_release);
}

}  // namespace

void ResetStream(StreamRing& stream, uint32_t call) noexcept {
  stream.call = call;
  ResetRing(stream.input);
  ResetRing(stream.output);
}

segment::Arena& ChunkProducer::arena() const noexcept { return ArenaOf(*pool_, arena_); }

uint32_t ChunkProducer::room() const noexcept {
  const uint32_t tail = ring_->tail.load(std::memory_order_relaxed);
  const uint32_t used = Used(tail, ring_->head.load(std::memory_order_acquire));
  return used > kStreamChunks ? 0 : kStreamChunks - used;
}

StreamEnd ChunkProducer::end() const noexcept {
  const uint32_t end = ring_->end.load(std::memory_order_acquire);
  if (end == 0) return StreamEnd::kOpen;
  return end == 1 ? StreamEnd::kEnded : StreamEnd::kAborted;
}

Result<ChunkProducer::Prepared> ChunkProducer::Accept(Result<segment::Arena::Allocation> allocation,
                                                      uint64_t bytes) const {
  if (!allocation.ok()) return allocation.status().WithContext("memory for a stream chunk");
  const PayloadRef ref{.offset = allocation->offset, .bytes = bytes, .block = allocation->block, .place = arena_};
  auto memory = pool_->Resolve(ref);
  if (!memory.ok()) return memory.status();
  return Prepared{ref, memory->first(bytes)};
}

Result<ChunkProducer::Prepared> ChunkProducer::Prepare(uint64_t bytes, uint64_t deadline_ns) {
  assert(bytes > 0 && bytes <= kStreamChunkBytes);
  return Accept(arena().Allocate(bytes, CallBlockOwner(call_), deadline_ns), bytes);
}

std::optional<Result<ChunkProducer::Prepared>> ChunkProducer::TryPrepare(uint64_t bytes) {
  assert(bytes > 0 && bytes <= kStreamChunkBytes);
  auto allocation = arena().TryAllocate(bytes, CallBlockOwner(call_));
  if (!allocation) return std::nullopt;
  return Accept(*std::move(allocation), bytes);
}

void ChunkProducer::Drop(const PayloadRef& ref, uint64_t deadline_ns) {
  // A block that could not be freed in time stays in the name of its call and goes when that is reclaimed.
  (void)arena().Free(ref.block, deadline_ns);
}

void ChunkProducer::Publish(const PayloadRef& ref) noexcept {
  assert(room() > 0 && ref.bytes > 0);
  const uint32_t tail = ring_->tail.load(std::memory_order_relaxed);
  ring_->chunks[tail % kStreamChunks] = ref;
  ring_->tail.store(tail + 1, std::memory_order_release);
}

Result<bool> ChunkProducer::Write(std::span<const std::byte> bytes, uint64_t deadline_ns) {
  if (bytes.size() > kStreamChunks * kStreamChunkBytes) {
    return Status(Code::kPayloadTooLarge,
                  "a stream takes at most " + std::to_string(kStreamChunks * kStreamChunkBytes) +
                      " bytes at once, got " + std::to_string(bytes.size()) + "; write smaller chunks");
  }
  if (end() != StreamEnd::kOpen) return Status(Code::kStreamAborted, "the stream has ended");
  const size_t chunks = (bytes.size() + kStreamChunkBytes - 1) / kStreamChunkBytes;
  if (chunks > room()) return false;

  // All memory first, so that a failure writes nothing.
  Prepared prepared[kStreamChunks];
  for (size_t i = 0; i < chunks; ++i) {
    const uint64_t at = i * kStreamChunkBytes;
    auto chunk = Prepare(std::min<uint64_t>(kStreamChunkBytes, bytes.size() - at), deadline_ns);
    if (!chunk.ok()) {
      for (size_t j = 0; j < i; ++j) Drop(prepared[j].ref, deadline_ns);
      return chunk.status();
    }
    prepared[i] = *chunk;
    std::memcpy(prepared[i].bytes.data(), bytes.data() + at, prepared[i].bytes.size());
  }
  for (size_t i = 0; i < chunks; ++i) Publish(prepared[i].ref);
  return true;
}

void ChunkProducer::End() noexcept {
  // An abort by the other side wins over a regular end.
  uint32_t open = 0;
  ring_->end.compare_exchange_strong(open, 1, std::memory_order_acq_rel);
}

void ChunkProducer::Abort() noexcept { ring_->end.store(2, std::memory_order_release); }

segment::Arena& ChunkConsumer::arena() const noexcept { return ArenaOf(*pool_, arena_); }

uint32_t ChunkConsumer::available() const noexcept {
  const uint32_t head = ring_->head.load(std::memory_order_relaxed);
  return std::min(Used(ring_->tail.load(std::memory_order_acquire), head), kStreamChunks);
}

StreamEnd ChunkConsumer::end() const noexcept {
  // `end` is read before `tail`: chunks published before the end are then seen.
  const uint32_t end = ring_->end.load(std::memory_order_acquire);
  if (end == 0 || available() > 0) return StreamEnd::kOpen;
  return end == 1 ? StreamEnd::kEnded : StreamEnd::kAborted;
}

bool ChunkConsumer::aborted() const noexcept { return ring_->end.load(std::memory_order_acquire) > 1; }

Result<std::optional<ChunkConsumer::Chunk>> ChunkConsumer::Peek() const {
  const uint32_t head = ring_->head.load(std::memory_order_relaxed);
  const uint32_t used = Used(ring_->tail.load(std::memory_order_acquire), head);
  if (used == 0) return std::optional<Chunk>();
  if (used > kStreamChunks)
    return Status(Code::kSegmentInvalid, "a stream ring is corrupt: more chunks than positions");
  const PayloadRef ref = ring_->chunks[head % kStreamChunks];
  if (ref.place != arena_ || ref.bytes == 0 || ref.bytes > kStreamChunkBytes) {
    return Status(Code::kSegmentInvalid,
                  "a stream ring is corrupt: a chunk of " + std::to_string(ref.bytes) + " bytes");
  }
  auto bytes = pool_->Resolve(ref);
  if (!bytes.ok()) return bytes.status().WithContext("a stream chunk");
  return std::optional<Chunk>(Chunk{ref, bytes->first(ref.bytes)});
}

void ChunkConsumer::GiveBack() noexcept {
  ring_->head.store(ring_->head.load(std::memory_order_relaxed) + 1, std::memory_order_release);
}

Status ChunkConsumer::Release(const PayloadRef& ref, uint64_t deadline_ns) {
  if (Status freed = arena().Free(ref.block, deadline_ns); !freed.ok()) return freed;
  GiveBack();
  return Status::Ok();
}

bool ChunkConsumer::TryRelease(const PayloadRef& ref) {
  if (!arena().TryFree(ref.block)) return false;
  GiveBack();
  return true;
}

Status ChunkConsumer::Discard(uint64_t deadline_ns) {
  for (;;) {
    auto chunk = Peek();
    if (!chunk.ok()) return chunk.status();
    if (!chunk->has_value()) return Status::Ok();
    if (Status released = Release((*chunk)->ref, deadline_ns); !released.ok()) return released;
  }
}

}  // namespace praas::dispatch
