#include <algorithm>
#include <atomic>
#include <string>

#include "segment/arena.h"
#include "segment/arena_head.h"
#include "segment/arena_lists.h"
#include "segment/segment.h"
#include "shm/shared_memory.h"

/// How an arena gets memory and gives it back. None of it makes a system call under the mutex.
namespace praas::segment {
namespace {

constexpr uint64_t kGrowthStepBytes = 1u << 20;
constexpr uint64_t kTrimStepBytes = 64 * 1024;

constexpr uint64_t RoundUpTo(uint64_t step, uint64_t bytes) noexcept { return (bytes + step - 1) / step * step; }

}  // namespace

Status Arena::MakeRoom(const Attempt& attempt, uint64_t bytes) {
  if (attempt.shortage == Shortage::kDescriptors) {
    return CommitRegion(segment_fd_, *region_, region_->committed.load(std::memory_order_acquire) + 1);
  }
  if (attempt.needed_end > limit_bytes_) {
    return {Code::kStateMemory, std::string(name_) + ": no room for " + std::to_string(bytes) +
                                    " bytes, the limit of " + std::to_string(limit_bytes_) + " bytes is reached (" +
                                    std::to_string(head_->used_bytes.load(std::memory_order_relaxed)) +
                                    " used); give the process more memory or delete what it no longer needs"};
  }
  return Grow(attempt.needed_end);
}

Status Arena::Grow(uint64_t end) {
  uint64_t word = head_->committed.load(std::memory_order_acquire);
  for (;;) {
    CommittedWord now = CommittedWord::Unpack(word);
    // While memory is given back nobody grows: the hole being punched could swallow the new memory. The caller comes
    // again.
    if (now.trimming || now.bytes >= end) return Status::Ok();
    uint64_t target = std::min(RoundUpTo(kGrowthStepBytes, end), limit_bytes_);
    const uint64_t least = std::min(RoundUpTo(kPageBytes, end), limit_bytes_);
    Status status = shm::Commit(backing_fd_, base_offset_ + now.bytes, target - now.bytes, name_);
    if (status.code() == Code::kStateMemory && least < target) {
      target = least;
      status = shm::Commit(backing_fd_, base_offset_ + now.bytes, target - now.bytes, name_);
    }
    if (!status.ok()) return status;
    now.bytes = target;
    // Fails when another grew (its watermark then counts) or trimmed (the generation differs, and what was just
    // committed may be gone again) meanwhile.
    if (head_->committed.compare_exchange_strong(word, now.Pack(), std::memory_order_acq_rel,
                                                 std::memory_order_acquire)) {
      return Status::Ok();
    }
  }
}

Status Arena::Trim(uint64_t keep_bytes) {
  uint64_t new_end = 0;
  {
    MutexGuard guard(head_->mutex, self_, MutexGuard::Try{});
    if (guard.outcome() == LockOutcome::kTimeout) return Status::Ok();
    if (Status status = Enter(guard.outcome()); !status.ok()) return status;
    ArenaLists lists(*head_, blocks_);
    uint64_t word = head_->committed.load(std::memory_order_acquire);
    CommittedWord committed = CommittedWord::Unpack(word);
    if (committed.trimming || lists.Spare(region_->committed.load(std::memory_order_acquire)) == 0) return Status::Ok();
    if (committed.bytes > head_->managed) lists.AppendFree(committed.bytes);
    const uint32_t last = head_->last;
    if (last == 0 || !ArenaLists::IsFree(lists.At(last))) return Status::Ok();
    const uint64_t tail_begin = head_->managed - lists.At(last).bytes;
    new_end = RoundUpTo(kTrimStepBytes, std::max(keep_bytes, tail_begin));
    if (new_end >= head_->managed) return Status::Ok();

    committed = {new_end, static_cast<uint16_t>(committed.generation + 1), true};
    if (!head_->committed.compare_exchange_strong(word, committed.Pack(), std::memory_order_acq_rel))
      return Status::Ok();
    lists.Remove(last);
    if (new_end > tail_begin) {
      lists.At(last).bytes = new_end - tail_begin;
      lists.Insert(last);
    } else {
      head_->last = lists.At(last).previous;
      if (head_->last != 0) lists.At(head_->last).next = 0;
      lists.GiveDescriptor(last);
    }
    head_->managed = new_end;
  }
  // To the limit, not to the old watermark: a participant killed while it grew may have left memory behind that.
  Status status = shm::Decommit(backing_fd_, base_offset_ + new_end, limit_bytes_ - new_end);
  head_->committed.fetch_and(~(1ull << 63), std::memory_order_acq_rel);
  return status;
}

}  // namespace praas::segment
