#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "base/spin.h"
#include "state/store_impl.h"

/// Changing a part of a value: appends and patches.
///
///   append, room behind the value   ≤ 4 KiB: copied inside the section. More: the room is reserved, filled outside the
///                                   section and becomes part of the value with a second one.
///   else, small result              a new block, filled from old value and change inside the section.
///   else                            a new block, filled outside under a pin, published if the value is still the same;
///                                   otherwise again, until the deadline or the store's limit.
/// Bytes that belong to a published value never change; so readers that pinned it need not know of any of this.
namespace praas::state {
namespace {

/// How long an append waits for one that has reserved the room, before it moves the value elsewhere instead.
constexpr uint64_t kReservedLimitNs = 100'000'000;

/// Room for a value that grew by appending: doubling up to 64 MiB, then a quarter more, so that the copies cost a
/// constant per byte appended and large values do not take twice their memory.
uint64_t RoomFor(uint64_t total) noexcept {
  constexpr uint64_t kLarge = 64ull << 20;
  return total <= kLarge ? total * 2 : total + total / 4;
}

/// Old value and change, laid over each other.
void Combine(std::byte* to, const std::byte* old, uint64_t old_bytes, std::span<const std::byte> change,
             uint64_t offset) {
  const uint64_t before = std::min(old_bytes, offset);
  if (before > 0) std::memcpy(to, old, before);
  if (!change.empty()) std::memcpy(to + offset, change.data(), change.size());
  const uint64_t end = offset + change.size();
  if (old_bytes > end) std::memcpy(to + end, old + end, old_bytes - end);
}

}  // namespace

class StateStore::Impl::Rewriting {
 public:
  Rewriting(Impl& impl, const Key& key, const Change& change) noexcept
      : impl_(impl), key_(key), change_(change), draft_(impl) {}

  Result<uint64_t> Run();

 private:
  enum class Next {
    kDone,       // `version_` is published
    kWait,       // another append has reserved the room
    kGrowPins,   // no pin record to be had in a section
    kFillRoom,   // `pin_` and `token_` reserve the room behind the value
    kAllocate,   // the draft is too small
    kFillDraft,  // `pin_` keeps the old value, if there is one
  };

  [[nodiscard]] Result<Next> Look();
  [[nodiscard]] Result<Next> Extend(const Found& found);
  [[nodiscard]] Result<bool> FillRoom();   // true: published
  [[nodiscard]] Result<bool> FillDraft();  // true: published
  uint64_t PublishExtended(const Found& found) noexcept;
  [[nodiscard]] bool append() const noexcept { return !change_.offset.has_value(); }

  Impl& impl_;
  const Key& key_;
  const Change& change_;
  Draft draft_;
  // As the last section found it. `bytes_` and `version_` are copies: the descriptor changes with every append.
  Found found_;
  uint64_t bytes_ = 0;
  uint64_t version_ = 0;
  uint64_t offset_ = 0;
  uint64_t total_ = 0;
  uint32_t pin_ = kNone;
  uint64_t token_ = 0;
  uint64_t reserved_since_ns_ = 0;
};

Result<uint64_t> StateStore::Impl::Rewrite(const Key& key, const Change& change) {
  return Rewriting(*this, key, change).Run();
}

void StateStore::LimitContention(uint64_t limit_ns) { impl_->contention_limit_ns = limit_ns; }

Result<uint64_t> StateStore::Impl::Rewriting::Run() {
  uint64_t limit_ns = kNoDeadline;  // from the first attempt that others have spoiled
  SpinYield spin;
  uint32_t allocations = 0;
  for (;;) {
    pin_ = kNone;
    Result<Next> next = Look();
    if (!next.ok()) return next.status();
    const Hold hold(impl_, pin_);
    Result<bool> published = false;
    switch (*next) {
      case Next::kDone:
        if (!found_) impl_.AfterInsertion();
        impl_.RenewLarge(key_, total_, change_.deadline_ns);
        return version_;
      case Next::kGrowPins:
        if (Status status = impl_.pins.Grow(); !status.ok()) return status;
        continue;
      case Next::kAllocate: {
        // A value has exactly its size at first: many are never appended to. The first append gives it room.
        const uint64_t generous = append() && found_ ? RoomFor(total_) : 0;
        if (Status status = draft_.Allocate(std::max<uint64_t>(1, total_), generous, change_.deadline_ns);
            !status.ok()) {
          return status;
        }
        if (allocations++ == 0) continue;
        break;  // it keeps growing under us
      }
      case Next::kWait:
        break;
      case Next::kFillRoom:
        published = FillRoom();
        break;
      case Next::kFillDraft:
        published = FillDraft();
        break;
    }
    if (!published.ok()) return published.status();
    if (*published) {
      if (!found_) impl_.AfterInsertion();
      impl_.RenewLarge(key_, total_, change_.deadline_ns);
      return version_;
    }
    limit_ns = std::min({limit_ns, change_.deadline_ns, DeadlineIn(impl_.contention_limit_ns)});
    if (NowNs() >= limit_ns) {
      return Status(Code::kStateContended,
                    "others kept changing state key \"" + std::string(key_.name) + "\"; use a lock or fewer writers");
    }
    spin.Step();
  }
}

Result<StateStore::Impl::Rewriting::Next> StateStore::Impl::Rewriting::Look() {
  Result<Section> section = impl_.EnterToWrite(key_, &found_, change_.deadline_ns);
  if (!section.ok()) return section.status();
  if (Status status = CheckIsValue(found_, key_); !status.ok()) return status;
  if (Status status = CheckVersion(change_.if_version, found_, key_); !status.ok()) return status;
  bytes_ = found_.bytes();
  version_ = found_.version();
  offset_ = change_.offset.value_or(bytes_);
  if (offset_ > bytes_ || change_.bytes.size() > kValueBytesMask - offset_) {
    return Status(Code::kStateRange, "offset " + std::to_string(offset_) + " is beyond the " + std::to_string(bytes_) +
                                         " bytes of state key \"" + std::string(key_.name) +
                                         "\"; values have no holes");
  }
  total_ = std::max(bytes_, offset_ + change_.bytes.size());

  if (append() && found_ && total_ <= found_.block->bytes) {
    Result<Next> next = Extend(found_);
    if (!next.ok() || *next != Next::kAllocate) return next;
  }
  if (draft_.capacity() < std::max<uint64_t>(1, total_)) return Next::kAllocate;
  if (total_ > kInlineCopyBytes) {
    if (!found_) return Next::kFillDraft;
    pin_ = impl_.pins.Pin(found_.ref.block);
    return pin_ == kNone ? Next::kGrowPins : Next::kFillDraft;
  }
  Combine(draft_.data(), found_ ? impl_.records.bytes(*found_.block) : nullptr, bytes_, change_.bytes, offset_);
  Result<uint64_t> version =
      impl_.Publish(key_, found_, draft_, {.kind = KeyKind::kValue}, total_, change_.deadline_ns);
  if (!version.ok()) return version.status();
  version_ = *version;
  return Next::kDone;
}

/// In a section. kAllocate: not in place, because the room has been reserved by somebody who does not get on.
Result<StateStore::Impl::Rewriting::Next> StateStore::Impl::Rewriting::Extend(const Found& found) {
  KeyEntry& entry = impl_.records.key(found.number);
  const bool reserved = entry.append_token != 0 && entry.append_block == found.ref.block &&
                        impl_.pins.Pins(entry.append_pin, entry.append_block);
  if (reserved) {
    const uint64_t now = NowNs();
    if (reserved_since_ns_ == 0) reserved_since_ns_ = now;
    return now - reserved_since_ns_ < kReservedLimitNs ? Next::kWait : Next::kAllocate;
  }
  if (change_.bytes.size() <= kInlineCopyBytes) {
    if (!change_.bytes.empty()) {
      std::memcpy(impl_.records.bytes(*found.block) + offset_, change_.bytes.data(), change_.bytes.size());
    }
    version_ = PublishExtended(found);
    return Next::kDone;
  }
  pin_ = impl_.pins.Pin(found.ref.block);
  if (pin_ == kNone) return Next::kGrowPins;
  token_ = ++impl_.head().last_ticket;
  entry.append_block = found.ref.block;
  entry.append_pin = pin_;
  entry.append_token = token_;
  return Next::kFillRoom;
}

uint64_t StateStore::Impl::Rewriting::PublishExtended(const Found& found) noexcept {
  segment::Block& block = *found.block;
  // The size last: a death before it leaves the old bytes, under a version that nobody was told.
  const uint64_t version = impl_.NextVersion();
  impl_.Supersede(key_, version);
  block.value_version = version;
  block.value_wall_ns = WallNs();
  std::atomic_ref<uint64_t>(block.value_bytes)
      .store((block.value_bytes & ~kValueBytesMask) | total_, std::memory_order_release);
  impl_.RenewHere(key_, found);
  return version;
}

Result<bool> StateStore::Impl::Rewriting::FillRoom() {
  // Where the block lies never changes while it is pinned.
  std::memcpy(impl_.segment.base() + found_.block->offset + offset_, change_.bytes.data(), change_.bytes.size());
  Found now;
  Result<Section> section = impl_.EnterToWrite(key_, &now, change_.deadline_ns);
  if (!section.ok()) return section.status();  // the reservation ends with the pin
  KeyEntry& entry = impl_.records.key(found_.number);
  if (now.number != found_.number || now.ref.block != found_.ref.block || entry.append_token != token_) return false;
  entry.append_token = 0;
  version_ = PublishExtended(now);
  return true;
}

Result<bool> StateStore::Impl::Rewriting::FillDraft() {
  Combine(draft_.data(), found_ ? impl_.segment.base() + found_.block->offset : nullptr, bytes_, change_.bytes,
          offset_);
  Found now;
  Result<Section> section = impl_.EnterToWrite(key_, &now, change_.deadline_ns);
  if (!section.ok()) return section.status();
  if (now.number != found_.number || now.ref.block != found_.ref.block || now.version() != version_) return false;
  Result<uint64_t> version = impl_.Publish(key_, now, draft_, {.kind = KeyKind::kValue}, total_, change_.deadline_ns);
  if (!version.ok()) return version.status();
  version_ = *version;
  return true;
}

}  // namespace praas::state
