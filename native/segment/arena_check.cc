#include <sched.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "segment/arena.h"
#include "segment/arena_head.h"
#include "segment/arena_lists.h"
#include "segment/table_check.h"

/// Checking an arena. Follows no link without looking where it leads, so that a damaged arena can be looked at, too.
namespace praas::segment {
namespace {

constexpr uint64_t kLockNs = 5'000'000'000;
constexpr uint32_t kQuietAttempts = 1000;
constexpr size_t kMaxFindings = 100;

class Checker {
 public:
  Checker(const char* name, const ArenaHead& head, const Block* blocks, uint64_t base, uint64_t limit,
          uint32_t descriptors)
      : name_(name),
        head_(head),
        blocks_(blocks),
        base_(base),
        limit_(limit),
        descriptors_(descriptors),
        seen_(descriptors + size_t{1}, false) {}

  std::vector<std::string> Run() {
    CheckBounds();
    CheckNeighbours();
    CheckOwned();
    CheckFreeLists();
    CheckUnused();
    return std::move(findings_);
  }

 private:
  [[nodiscard]] const Block& At(uint32_t index) const noexcept { return blocks_[index - 1]; }
  [[nodiscard]] bool Exists(uint32_t index) const noexcept { return index != 0 && index <= descriptors_; }
  [[nodiscard]] bool Full() const noexcept { return findings_.size() >= kMaxFindings; }

  void Find(std::string what) {
    if (!Full()) findings_.push_back(std::string(name_) + ": " + std::move(what));
  }
  void Find(uint32_t index, const char* what) { Find("block " + std::to_string(index) + ' ' + what); }
  void Compare(const char* what, uint64_t recorded, uint64_t counted) {
    if (recorded == counted) return;
    Find(std::string(what) + " recorded as " + std::to_string(recorded) + ", counted " + std::to_string(counted));
  }

  void CheckBounds() {
    const CommittedWord committed = CommittedWord::Unpack(head_.committed.load(std::memory_order_acquire));
    if (head_.base_offset != base_ || head_.limit_bytes != limit_) Find("bounds differ from the segment's");
    if (committed.bytes > limit_) Find("more committed than the limit allows");
    // While memory is being given back, the watermark is already the new one.
    if (head_.managed > committed.bytes) Find("blocks beyond committed memory");
    if (head_.damaged.load(std::memory_order_relaxed) != 0) Find("marked as damaged");
  }

  void CheckNeighbours() {
    uint64_t end = base_ + head_.managed;
    uint32_t right = 0;
    for (uint32_t index = head_.last; index != 0; index = At(index).previous) {
      if (!Exists(index) || seen_[index])
        return Find("neighbour links lead to block " + std::to_string(index) + " wrongly");
      seen_[index] = true;
      const Block& block = At(index);
      if (block.next != right) Find(index, "names a wrong right neighbour");
      if (block.bytes == 0 || block.bytes % Arena::kGranule != 0) return Find(index, "has no proper size");
      if (block.bytes > end - base_ || block.offset != end - block.bytes)
        return Find(index, "does not meet its neighbour");
      if (ArenaLists::IsFree(block)) {
        ++free_blocks_;
        if (right != 0 && ArenaLists::IsFree(At(right))) Find(index, "is free like its neighbour, but not joined");
      } else {
        ++used_blocks_;
        used_bytes_ += block.bytes;
      }
      end = block.offset;
      right = index;
    }
    if (end != base_) Find("bytes at the begin belong to no block");
    Compare("used blocks", head_.used_blocks.load(std::memory_order_relaxed), used_blocks_);
    Compare("free blocks", head_.free_blocks.load(std::memory_order_relaxed), free_blocks_);
    Compare("used bytes", head_.used_bytes.load(std::memory_order_relaxed), used_bytes_);
  }

  void CheckOwned() {
    for (uint32_t index = 1; index <= descriptors_ && !Full(); ++index) {
      if (!ArenaLists::IsFree(At(index)) && !seen_[index])
        Find(index, "is owned, but lies beside the chain of neighbours");
    }
  }

  void CheckFreeLists() {
    uint64_t filed = 0;
    for (uint32_t first = 0; first < kFirstLevels; ++first) {
      const uint32_t bits = head_.second_level[first].load(std::memory_order_relaxed);
      const bool first_bit = (head_.first_level.load(std::memory_order_relaxed) >> first & 1) != 0;
      if (first_bit != (bits != 0)) Find("first-level bit " + std::to_string(first) + " is wrong");
      for (uint32_t second = 0; second < kSecondLevels; ++second) {
        if ((bits >> second & 1) != (head_.lists[first][second] != 0)) Find("a second-level bit is wrong");
        uint32_t previous = 0;
        for (uint32_t index = head_.lists[first][second]; index != 0; index = At(index).free_next) {
          if (!Exists(index) || !seen_[index] || !ArenaLists::IsFree(At(index))) {
            return Find("a free list leads to block " + std::to_string(index) + " wrongly");
          }
          const SizeClass expected = ClassOf(At(index).bytes);
          if (expected.first != first || expected.second != second) Find(index, "is filed under a wrong size");
          if (At(index).free_previous != previous) Find(index, "names a wrong predecessor in its free list");
          if (++filed > free_blocks_) return Find("free lists hold more blocks than are free");
          previous = index;
        }
      }
    }
    Compare("blocks in free lists", filed, free_blocks_);
  }

  void CheckUnused() {
    uint64_t unused = 0;
    for (uint32_t index = head_.unused; index != 0; index = At(index).free_next) {
      if (!Exists(index) || seen_[index] || index >= head_.fresh) {
        return Find("the list of unused descriptors leads to block " + std::to_string(index) + " wrongly");
      }
      if (++unused > descriptors_) return Find("the list of unused descriptors has no end");
    }
    Compare("unused descriptors", head_.unused_count, unused);
    const uint64_t fresh = head_.fresh <= descriptors_ ? descriptors_ - head_.fresh + 1 : 0;
    Compare("descriptors", descriptors_, used_blocks_ + free_blocks_ + unused + fresh);
  }

  const char* name_;
  const ArenaHead& head_;
  const Block* blocks_;
  uint64_t base_;
  uint64_t limit_;
  uint32_t descriptors_;
  std::vector<bool> seen_;
  std::vector<std::string> findings_;
  uint64_t used_blocks_ = 0;
  uint64_t free_blocks_ = 0;
  uint64_t used_bytes_ = 0;
};

}  // namespace

std::vector<std::string> Arena::Check() const {
  const auto run = [this] {
    return Checker(name_, *head_, blocks_, base_offset_, limit_bytes_,
                   std::min(region_->committed.load(std::memory_order_acquire), region_->capacity))
        .Run();
  };
  if (writable_) {
    MutexGuard guard(head_->mutex, self_, DeadlineIn(kLockNs));
    if (Status status = Enter(guard.outcome()); !status.ok()) return {status.message()};
    return run();
  }
  // A read-only mapping cannot lock. What was read counts when nobody was inside from before to after
  // (or when it is sound anyway).
  for (uint32_t attempt = 0; attempt < kQuietAttempts; ++attempt) {
    const RobustMutex::Owner before = head_->mutex.Observe();
    if (before.died) return {};  // what is derived is rebuilt by the next one to come
    if (!before.held) {
      std::vector<std::string> findings = run();
      const RobustMutex::Owner after = head_->mutex.Observe();
      if (findings.empty() || (!after.held && after.acquisitions == before.acquisitions)) return findings;
    }
    sched_yield();
  }
  return {std::string(name_) + ": " + std::string(kUnchecked)};
}

}  // namespace praas::segment
