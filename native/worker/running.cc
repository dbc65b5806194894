#include "worker/running.h"

#include <algorithm>
#include <cassert>
#include <utility>

#include "base/unique_fd.h"
#include "shm/memfd.h"

namespace praas::worker {
namespace {

constexpr uint32_t kSlotShift = 13;
constexpr uint64_t kSlotMask = 0x1fff;
constexpr uint64_t kMarker = 1u << 12;
/// Of one record: a small output, then a small input.
constexpr uint64_t kScratchBytes = dispatch::kSlotOutputBytes + dispatch::kSlotInputBytes;
static_assert(dispatch::kMaxCalls <= 1u << 12 && 2 * dispatch::kMaxCalls <= kSlotMask + 1);
static_assert(((kSlotMask << kSlotShift) & kRunningFlags) == 0);

}  // namespace

Result<std::unique_ptr<RunningTable>> RunningTable::Make(uint32_t calls) {
  const uint32_t slots = std::min((2 * calls + 63) / 64, kGroups) * 64;
  const uint64_t scratch_bytes = slots * kScratchBytes;
  auto memfd = shm::CreateMemfd("praas-scratch", scratch_bytes, shm::Sealing::kFixed);
  if (!memfd.ok()) return memfd.status();
  auto scratch = shm::Mapping::Map(memfd->get(), 0, scratch_bytes, shm::Access::kReadWrite);
  if (!scratch.ok()) return scratch.status();
  return std::unique_ptr<RunningTable>(new RunningTable(std::move(*scratch), slots));
}

Running* RunningTable::Reserve() {
  if (free_.empty()) {
    if (made_ * 64 >= slots_) return nullptr;
    groups_[made_] = std::make_unique<Group>();
    for (uint32_t bit = 64; bit-- > 0;) free_.push_back(static_cast<uint16_t>(made_ * 64 + bit));
    ++made_;
  }
  const uint32_t slot = free_.back();
  free_.pop_back();
  return &(*groups_[slot / 64])[slot % 64];
}

uint32_t RunningTable::SlotOf(const Running& record) const noexcept {
  for (uint32_t group = 0; group < made_; ++group) {
    const Running* first = groups_[group]->data();
    if (&record >= first && &record < first + 64) return group * 64 + static_cast<uint32_t>(&record - first);
  }
  assert(false);
  return 0;
}

uint64_t RunningTable::Publish(Running& record) noexcept {
  const uint32_t slot = SlotOf(record);
  const uint64_t handle = static_cast<uint64_t>(record.generation) << 32 | static_cast<uint64_t>(slot) << kSlotShift |
                          kMarker | record.index;
  record.word.store(handle, std::memory_order_release);
  bits_[slot / 64].fetch_or(uint64_t{1} << (slot % 64), std::memory_order_seq_cst);
  ++count_;
  return handle;
}

void RunningTable::End(Running& record) noexcept {
  const uint32_t slot = SlotOf(record);
  record.word.store(0, std::memory_order_release);
  bits_[slot / 64].fetch_and(~(uint64_t{1} << (slot % 64)), std::memory_order_release);
  free_.push_back(static_cast<uint16_t>(slot));
  --count_;
}

Running* RunningTable::Find(uint64_t handle) noexcept {
  const uint64_t slot = handle >> kSlotShift & kSlotMask;
  if (slot >= made_ * 64u) return nullptr;
  Running& record = (*groups_[slot / 64])[slot % 64];
  const uint64_t word = record.word.load(std::memory_order_acquire);
  return word != 0 && (word & ~kRunningFlags) == handle ? &record : nullptr;
}

std::span<std::byte> RunningTable::Scratch(const Running& record) noexcept {
  return scratch_.bytes().subspan(SlotOf(record) * kScratchBytes, dispatch::kSlotOutputBytes);
}

std::span<std::byte> RunningTable::InputScratch(const Running& record) noexcept {
  return scratch_.bytes().subspan(SlotOf(record) * kScratchBytes + dispatch::kSlotOutputBytes,
                                  dispatch::kSlotInputBytes);
}

std::span<std::byte> RunningTable::scratch_mapping() const noexcept { return scratch_.bytes(); }

}  // namespace praas::worker
