#pragma once

#include <cstdint>

#include "base/result.h"
#include "segment/segment.h"
#include "state/state_layout.h"

namespace praas::state {

/// Typed access to the store's records in a segment, and the life of a record: taken from its pool under the mutex,
/// published by its owner, given back under the mutex. Numbers are 1-based; the caller has checked numbers that were
/// read from records it does not trust with `Valid…`.
class Records {
 public:
  explicit Records(const segment::Segment& segment) noexcept
      : segment_(&segment),
        header_(&segment.header()),
        head_(reinterpret_cast<StateHead*>(segment.base() + header_->state_head)) {}

  [[nodiscard]] StateHead& head() const noexcept { return *head_; }
  [[nodiscard]] segment::Header& header() const noexcept { return *header_; }
  [[nodiscard]] const segment::Segment& segment() const noexcept { return *segment_; }

  [[nodiscard]] KeyEntry& key(uint32_t number) const noexcept { return At<KeyEntry>(header_->state_keys, number); }
  [[nodiscard]] PinRecord& pin(uint32_t number) const noexcept { return At<PinRecord>(header_->pins, number); }
  [[nodiscard]] LockRecord& lock(uint32_t number) const noexcept { return At<LockRecord>(header_->locks, number); }
  [[nodiscard]] LockHolder& holder(uint32_t number) const noexcept {
    return At<LockHolder>(header_->lock_holders, number);
  }
  [[nodiscard]] PublicationRecord& publication(uint32_t number) const noexcept {
    return At<PublicationRecord>(header_->publications, number);
  }
  [[nodiscard]] segment::Block& block(uint32_t number) const noexcept {
    return At<segment::Block>(header_->arena_blocks[0], number);
  }
  /// Buckets count from 0.
  [[nodiscard]] uint32_t& bucket(uint32_t index) const noexcept {
    return segment_->At<uint32_t>(header_->state_buckets, index);
  }

  [[nodiscard]] static uint32_t Committed(const segment::Region& region) noexcept {
    return region.committed.load(std::memory_order_acquire);
  }
  [[nodiscard]] static bool Valid(const segment::Region& region, uint32_t number) noexcept {
    return number != kNone && number <= Committed(region);
  }
  /// Number and descriptor of a block that carries a value: in bounds, owned by the state, and not smaller than the
  /// value.
  [[nodiscard]] bool ValidValueBlock(uint32_t number) const noexcept {
    if (!Valid(header_->arena_blocks[0], number)) return false;
    const segment::Block& candidate = block(number);
    const uint64_t end = header_->meta_bytes + segment_->data_bytes();
    return candidate.owner.kind == segment::BlockOwner::Kind::kState && candidate.offset >= header_->meta_bytes &&
           candidate.offset <= end && candidate.bytes <= end - candidate.offset &&
           ValueBytes(candidate) <= candidate.bytes;
  }
  [[nodiscard]] std::byte* bytes(const segment::Block& of) const noexcept { return segment_->base() + of.offset; }

  /// An unused record, or kNone when `region` has to be grown first. Under the mutex.
  template <typename T>
  [[nodiscard]] uint32_t Take(RecordPool& pool, const segment::Region& region) const noexcept {
    uint32_t number = pool.free;
    if (number != kNone) {
      pool.free = At<T>(region, number).next;
    } else if (pool.high < Committed(region)) {
      number = ++pool.high;
    } else {
      return kNone;
    }
    At<T>(region, number).next = kNone;
    AddUsed(pool, 1);
    return number;
  }
  template <typename T>
  void Give(RecordPool& pool, const segment::Region& region, uint32_t number) const noexcept {
    At<T>(region, number).next = pool.free;
    pool.free = number;
    AddUsed(pool, -1);
  }
  [[nodiscard]] static bool HasRoom(const RecordPool& pool, const segment::Region& region) noexcept {
    return pool.free != kNone || pool.high < Committed(region);
  }

  /// Commits more of `region`, an eighth of what there is and at least a page's worth, so that growth costs a constant
  /// share per record and wastes little. Outside the mutex. kStateMemory when the region is full.
  [[nodiscard]] Status Grow(segment::Region& region, const char* what) const;

 private:
  template <typename T>
  [[nodiscard]] T& At(const segment::Region& region, uint32_t number) const noexcept {
    return segment_->At<T>(region, number - 1);
  }
  static void AddUsed(RecordPool& pool, int32_t difference) noexcept {
    pool.used.store(pool.used.load(std::memory_order_relaxed) + static_cast<uint32_t>(difference),
                    std::memory_order_relaxed);
  }

  const segment::Segment* segment_;
  segment::Header* header_;
  StateHead* head_;
};

}  // namespace praas::state
