#include "segment/arena.h"

#include <algorithm>
#include <cassert>

#include "base/clock.h"
#include "base/spin.h"
#include "segment/arena_head.h"
#include "segment/arena_lists.h"
#include "segment/segment.h"

namespace praas::segment {
namespace {

constexpr const char* kNames[] = {"state memory", "payload memory (inputs)", "payload memory (results)"};

/// Descriptors looked at per acquisition of the mutex by a sweep over all of them.
constexpr uint32_t kSweepStep = 2048;

/// How often an allocation may lose what it made room for to others before the deadline counts.
constexpr uint32_t kFreeAttempts = 8;

constexpr uint64_t RoundUp(uint64_t bytes) noexcept {
  return (bytes + Arena::kGranule - 1) / Arena::kGranule * Arena::kGranule;
}

}  // namespace

Arena::Arena(const Segment& segment, uint32_t which, int backing_fd, uint64_t base_offset, uint64_t limit_bytes,
             uint16_t self)
    : head_(reinterpret_cast<ArenaHead*>(segment.base() + segment.header().arena_heads[which])),
      region_(&segment.header().arena_blocks[which]),
      blocks_(reinterpret_cast<Block*>(segment.base() + region_->offset)),
      segment_fd_(segment.fd()),
      backing_fd_(backing_fd),
      base_offset_(base_offset),
      limit_bytes_(limit_bytes / kGranule * kGranule),
      name_(kNames[which]),
      self_(self),
      writable_(segment.writable()) {}

Arena Arena::Data(const Segment& segment, uint16_t self) {
  const Header& header = segment.header();
  return Arena(segment, 0, segment.fd(), header.meta_bytes, header.memory_bytes, self);
}

Status Arena::Enter(LockOutcome outcome) const {
  switch (outcome) {
    case LockOutcome::kTimeout:
      return {Code::kSegmentStuck, std::string(name_) + ": its lock was not released in time"};
    case LockOutcome::kBroken:
      return {Code::kSegmentInvalid, std::string(name_) + ": its lock is damaged"};
    case LockOutcome::kOwnerDied: {
      Status status = Rebuild();
      head_->damaged.store(status.ok() ? 0 : 1, std::memory_order_relaxed);
      head_->mutex.MakeConsistent();
      return status;
    }
    case LockOutcome::kAcquired:
      break;
  }
  if (head_->damaged.load(std::memory_order_relaxed) != 0) {
    return {Code::kSegmentInvalid, std::string(name_) + ": its blocks contradict each other"};
  }
  return Status::Ok();
}

Status Arena::CheckRequest(uint64_t bytes, BlockOwner owner) const {
  if (bytes == 0) return {Code::kArgumentInvalid, "a block has at least one byte"};
  if (owner.kind == BlockOwner::Kind::kFree) return {Code::kArgumentInvalid, "a block is allocated for somebody"};
  // Before rounding, which could overflow.
  if (bytes > limit_bytes_) {
    return {Code::kStateMemory, std::string(name_) + ": " + std::to_string(bytes) + " bytes exceed the limit of " +
                                    std::to_string(limit_bytes_) + " bytes as a whole"};
  }
  return Status::Ok();
}

Arena::Attempt Arena::AllocateLocked(uint64_t bytes, BlockOwner owner) {
  ArenaLists lists(*head_, blocks_);
  // One for memory that was committed since the last time, one for the rest of a block that is cut.
  if (lists.Spare(region_->committed.load(std::memory_order_acquire)) < 2) return {.shortage = Shortage::kDescriptors};
  const CommittedWord committed = CommittedWord::Unpack(head_->committed.load(std::memory_order_acquire));
  if (committed.bytes > head_->managed) lists.AppendFree(committed.bytes);

  bytes = RoundUp(bytes);
  const uint32_t index = lists.Find(bytes);
  if (index == 0) {
    const uint32_t last = head_->last;
    const uint64_t tail = last != 0 && ArenaLists::IsFree(lists.At(last)) ? lists.At(last).bytes : 0;
    return {.shortage = Shortage::kMemory, .needed_end = head_->managed - tail + bytes};
  }
  lists.Remove(index);
  Block& block = lists.At(index);
  if (block.bytes > bytes) lists.Split(index, bytes);
  // From this store on the block is used, with the offset and size written before; until then it is free.
  std::atomic_ref<BlockOwner>(block.owner).store(owner, std::memory_order_release);
  head_->used_bytes.store(head_->used_bytes.load(std::memory_order_relaxed) + bytes, std::memory_order_relaxed);
  head_->used_blocks.store(head_->used_blocks.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  return {.allocation = {index, block.offset, bytes}};
}

Result<Arena::Allocation> Arena::Allocate(uint64_t bytes, BlockOwner owner, uint64_t deadline_ns) {
  if (Status status = CheckRequest(bytes, owner); !status.ok()) return status;
  for (uint32_t attempts = 1;; ++attempts) {
    MutexGuard guard(head_->mutex, self_, deadline_ns);
    if (Status status = Enter(guard.outcome()); !status.ok()) return status;
    const Attempt attempt = AllocateLocked(bytes, owner);
    guard.Unlock();
    if (attempt.shortage == Shortage::kNone) return attempt.allocation;
    if (Status status = MakeRoom(attempt, bytes); !status.ok()) return status;
    if (attempts <= kFreeAttempts) continue;
    if (NowNs() >= deadline_ns) {
      return Status(Code::kStateMemory, std::string(name_) + ": others took what became free, until the deadline");
    }
    sched_yield();
  }
}

std::optional<Result<Arena::Allocation>> Arena::TryAllocate(uint64_t bytes, BlockOwner owner) {
  if (Status status = CheckRequest(bytes, owner); !status.ok()) return Result<Allocation>(std::move(status));
  bool grown = false;
  for (;;) {
    MutexGuard guard(head_->mutex, self_, MutexGuard::Try{});
    if (guard.outcome() == LockOutcome::kTimeout) return std::nullopt;
    if (Status status = Enter(guard.outcome()); !status.ok()) return Result<Allocation>(std::move(status));
    const Attempt attempt = AllocateLocked(bytes, owner);
    guard.Unlock();
    if (attempt.shortage == Shortage::kNone) return Result<Allocation>(attempt.allocation);
    if (attempt.shortage == Shortage::kMemory && std::exchange(grown, true)) return std::nullopt;
    if (Status status = MakeRoom(attempt, bytes); !status.ok()) return Result<Allocation>(std::move(status));
  }
}

bool Arena::IsBlock(uint32_t index) const noexcept {
  return index != 0 && index <= region_->committed.load(std::memory_order_acquire);
}

void Arena::FreeLocked(uint32_t index) {
  ArenaLists lists(*head_, blocks_);
  Block& block = lists.At(index);
  // From this store on the block is free; the links follow.
  std::atomic_ref<BlockOwner>(block.owner).store(BlockOwner{}, std::memory_order_seq_cst);
  head_->used_bytes.store(head_->used_bytes.load(std::memory_order_relaxed) - block.bytes, std::memory_order_relaxed);
  head_->used_blocks.store(head_->used_blocks.load(std::memory_order_relaxed) - 1, std::memory_order_relaxed);
  lists.MergeAndInsert(index);
}

Status Arena::Free(uint32_t index, uint64_t deadline_ns) {
  MutexGuard guard(head_->mutex, self_, deadline_ns);
  if (Status status = Enter(guard.outcome()); !status.ok()) return status;
  if (!IsBlock(index) || ArenaLists::IsFree(block(index))) {
    return {Code::kArgumentInvalid, std::string(name_) + ": block " + std::to_string(index) + " is not in use"};
  }
  FreeLocked(index);
  return Status::Ok();
}

bool Arena::TryFree(uint32_t index) {
  MutexGuard guard(head_->mutex, self_, MutexGuard::Try{});
  if (guard.outcome() == LockOutcome::kTimeout) return false;
  if (!Enter(guard.outcome()).ok()) return true;  // damaged: nothing is allocated or freed any more
  assert(IsBlock(index) && !ArenaLists::IsFree(block(index)));
  if (IsBlock(index) && !ArenaLists::IsFree(block(index))) FreeLocked(index);
  return true;
}

Status Arena::SetOwner(uint32_t index, BlockOwner owner, uint64_t deadline_ns) {
  if (owner.kind == BlockOwner::Kind::kFree) return {Code::kArgumentInvalid, "a block is handed over to somebody"};
  MutexGuard guard(head_->mutex, self_, deadline_ns);
  if (Status status = Enter(guard.outcome()); !status.ok()) return status;
  if (!IsBlock(index) || ArenaLists::IsFree(block(index))) {
    return {Code::kArgumentInvalid, std::string(name_) + ": block " + std::to_string(index) + " is not in use"};
  }
  std::atomic_ref<BlockOwner>(mutable_block(index).owner).store(owner, std::memory_order_release);
  return Status::Ok();
}

Result<uint32_t> Arena::ReclaimIf(const std::function<bool(uint32_t, const Block&)>& dead, uint64_t deadline_ns) {
  uint32_t reclaimed = 0;
  for (uint32_t begin = 1; IsBlock(begin);) {
    MutexGuard guard(head_->mutex, self_, deadline_ns);
    if (Status status = Enter(guard.outcome()); !status.ok()) return status;
    const uint32_t end = std::min(begin + kSweepStep, region_->committed.load(std::memory_order_acquire) + 1);
    for (uint32_t index = begin; index < end; ++index) {
      if (ArenaLists::IsFree(block(index)) || !dead(index, block(index))) continue;
      FreeLocked(index);
      ++reclaimed;
    }
    begin = end;
  }
  return reclaimed;
}

Arena::Usage Arena::usage() const noexcept {
  return {.limit_bytes = limit_bytes_,
          .committed_bytes = CommittedWord::Unpack(head_->committed.load(std::memory_order_relaxed)).bytes,
          .used_bytes = head_->used_bytes.load(std::memory_order_relaxed),
          .largest_free_bytes = ArenaLists(*head_, blocks_).LargestFree(),
          .used_blocks = head_->used_blocks.load(std::memory_order_relaxed),
          .free_blocks = head_->free_blocks.load(std::memory_order_relaxed),
          .rebuilds = head_->rebuilds.load(std::memory_order_relaxed),
          .list_steps = head_->steps.load(std::memory_order_relaxed)};
}

const RobustMutex& Arena::mutex() const noexcept { return head_->mutex; }

}  // namespace praas::segment
