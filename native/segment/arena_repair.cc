#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "segment/arena.h"
#include "segment/arena_head.h"
#include "segment/arena_lists.h"
#include "segment/segment.h"
#include "shm/shared_memory.h"

/// Making an arena whole: formatting, recovery after a host's death, rebuild after a death inside.
namespace praas::segment {
namespace {

constexpr uint32_t kHeartbeatStep = 1u << 14;

struct UsedBlock {
  uint64_t offset;
  uint32_t index;
};

/// Whether an owned descriptor describes bytes of the arena at all.
bool IsPlausible(const Block& block, uint64_t base, uint64_t committed_bytes) noexcept {
  const uint64_t from = block.offset - base;
  return block.offset >= base && from % Arena::kGranule == 0 && block.bytes != 0 &&
         block.bytes % Arena::kGranule == 0 && block.bytes <= committed_bytes &&
         from <= committed_bytes - block.bytes && block.owner.kind <= BlockOwner::Kind::kState;
}

Status Contradiction(const char* name, uint32_t index, const char* how) {
  return {Code::kSegmentInvalid, std::string(name) + ": block " + std::to_string(index) + ' ' + how};
}

/// Lays blocks side by side from the begin of the arena, filling what lies between them with free blocks.
class Layer {
 public:
  Layer(ArenaHead& head, ArenaLists& lists, uint32_t descriptors) noexcept
      : head_(head), lists_(lists), descriptors_(descriptors) {}

  /// false: no descriptor for the gap.
  [[nodiscard]] bool FillTo(uint64_t end) noexcept {
    if (end == head_.managed) return true;
    if (lists_.Spare(descriptors_) == 0) return false;
    lists_.AppendFree(end);
    return true;
  }
  void Place(uint32_t index) noexcept {
    Block& block = lists_.At(index);
    block.previous = head_.last;
    block.next = 0;
    if (head_.last != 0) lists_.At(head_.last).next = index;
    head_.last = index;
    head_.managed += block.bytes;
    head_.used_bytes.fetch_add(block.bytes, std::memory_order_relaxed);
    head_.used_blocks.fetch_add(1, std::memory_order_relaxed);
  }

 private:
  ArenaHead& head_;
  ArenaLists& lists_;
  uint32_t descriptors_;
};

}  // namespace

/// Reads owners, offsets and sizes of owned descriptors and the watermark, writes nothing of these: being killed in
/// here leaves exactly what it found, and the next locker starts over.
Status Arena::Rebuild() const {
  head_->rebuilds.fetch_add(1, std::memory_order_relaxed);
  const uint64_t committed_bytes = CommittedWord::Unpack(head_->committed.load(std::memory_order_acquire)).bytes;
  const uint32_t descriptors = region_->committed.load(std::memory_order_acquire);
  if (committed_bytes > limit_bytes_)
    return {Code::kSegmentInvalid, std::string(name_) + ": more committed than allowed"};

  ArenaLists lists(*head_, blocks_);
  std::vector<UsedBlock> used;
  for (uint32_t index = 1; index <= descriptors; ++index) {
    if (index % kHeartbeatStep == 0) head_->mutex.Heartbeat();
    if (ArenaLists::IsFree(block(index))) continue;
    if (!IsPlausible(block(index), base_offset_, committed_bytes)) {
      return Contradiction(name_, index, "lies outside the arena");
    }
    used.push_back({block(index).offset, index});
  }
  std::sort(used.begin(), used.end(), [](const UsedBlock& a, const UsedBlock& b) { return a.offset < b.offset; });
  head_->mutex.Heartbeat();
  for (size_t i = 1; i < used.size(); ++i) {
    if (used[i - 1].offset + block(used[i - 1].index).bytes > used[i].offset) {
      return Contradiction(name_, used[i].index, "overlaps another");
    }
  }

  head_->base_offset = base_offset_;
  head_->limit_bytes = limit_bytes_;
  lists.Clear();
  head_->fresh = descriptors + 1;
  for (uint32_t index = descriptors; index >= 1; --index) {
    if (index % kHeartbeatStep == 0) head_->mutex.Heartbeat();
    if (ArenaLists::IsFree(block(index))) lists.GiveDescriptor(index);
  }
  Layer layer(*head_, lists, descriptors);
  for (const UsedBlock& entry : used) {
    if (entry.index % kHeartbeatStep == 0) head_->mutex.Heartbeat();
    // Each gap had a descriptor before the death, so there is one for it now.
    if (!layer.FillTo(entry.offset - base_offset_))
      return Contradiction(name_, entry.index, "follows a gap without descriptor");
    layer.Place(entry.index);
  }
  // The end may be memory committed since the last allocation, for which nobody has taken a descriptor yet: the next
  // allocation adds it.
  (void)layer.FillTo(committed_bytes);
  return Status::Ok();
}

Status Arena::Format() {
  // As many as the limit could ever need, or as many as an index can name.
  if (limit_bytes_ == 0 || region_->capacity < std::min<uint64_t>(limit_bytes_ / kGranule + 2, kMaxDescriptors)) {
    return {Code::kArgumentInvalid, std::string(name_) + ": the segment has no descriptors for a limit of " +
                                        std::to_string(limit_bytes_) + " bytes"};
  }
  // Descriptors of an earlier life would count as used blocks.
  const uint64_t stale_bytes = region_->committed.load(std::memory_order_acquire) * uint64_t{region_->stride};
  region_->committed.store(0, std::memory_order_release);
  if (Status status = shm::Decommit(segment_fd_, region_->offset, stale_bytes); !status.ok()) return status;
  if (Status status = CommitRegion(segment_fd_, *region_, 1); !status.ok()) return status;

  std::memset(static_cast<void*>(head_), 0, sizeof *head_);
  if (Status status = head_->mutex.Init(); !status.ok()) return status;
  head_->base_offset = base_offset_;
  head_->limit_bytes = limit_bytes_;
  ArenaLists(*head_, blocks_).Clear();
  return Status::Ok();
}

Status Arena::Recover() {
  if (head_->base_offset != base_offset_ || head_->limit_bytes != limit_bytes_) {
    return {Code::kSegmentInvalid, std::string(name_) + ": its bounds are not those of the segment"};
  }
  CommittedWord committed = CommittedWord::Unpack(head_->committed.load(std::memory_order_acquire));
  committed.trimming = false;
  head_->committed.store(committed.Pack(), std::memory_order_release);
  if (Status status = head_->mutex.Init(); !status.ok()) return status;

  MutexGuard guard(head_->mutex, self_, MutexGuard::Try{});
  if (!guard.held()) return {Code::kInternal, std::string(name_) + ": a new lock is taken"};
  Status status = Rebuild();
  head_->damaged.store(status.ok() ? 0 : 1, std::memory_order_relaxed);
  return status;
}

}  // namespace praas::segment
