#include "state/store_impl.h"

#include <cstring>

#include "base/clock.h"
#include "protocol/names.h"

namespace praas::state {

using segment::BlockOwner;

StateStore::Impl::Impl(const segment::Segment& the_segment, segment::Arena& the_arena, uint16_t participant,
                       const publication::Area* the_area) noexcept
    : segment(the_segment),
      arena(the_arena),
      self(participant),
      area(the_area),
      records(the_segment),
      keys(records),
      pins(records, participant),
      locks(records),
      publications(records) {}

Result<StateStore::Impl::Section> StateStore::Impl::Enter(uint64_t deadline_ns) {
  segment::RobustMutex& mutex = head().mutex;
  switch (mutex.Lock(self, deadline_ns)) {
    case segment::LockOutcome::kAcquired:
      break;
    case segment::LockOutcome::kOwnerDied:
      // Noted before the mutex forgets: should this process die in the middle of the repair, the next one does it
      // again.
      head().dirty.store(1, std::memory_order_release);
      mutex.MakeConsistent();
      break;
    case segment::LockOutcome::kTimeout:
      return Status(Code::kSegmentStuck,
                    "the state of the process was locked by another participant until the deadline");
    case segment::LockOutcome::kBroken:
      return Status(Code::kSegmentInvalid, "the state's mutex is unusable; restart the process host, which repairs it");
  }
  Section section(*this);
  if (head().dirty.load(std::memory_order_acquire) != 0) {
    Repair();
    head().dirty.store(0, std::memory_order_release);
    head().repairs.fetch_add(1, std::memory_order_relaxed);
  }
  if (head().leaked.load(std::memory_order_relaxed) != 0) {
    if (Sweep(/*values_only=*/true, NowNs() + kFreeLimitNs).ok()) head().leaked.store(0, std::memory_order_relaxed);
  }
  if (pins.has_idle()) {
    pins.DrainIdle([this](uint32_t block) { FreeIfRetired(block); });
  }
  return section;
}

void StateStore::Impl::LeaveSection() {
  std::vector<uint16_t> granted;
  granted.swap(locks.granted());
  head().mutex.Unlock();
  if (!wake) return;
  for (const uint16_t participant : granted) wake(participant);
}

Result<StateStore::Impl::Key> StateStore::Impl::MakeKey(std::string_view name) const {
  if (Status status = protocol::ValidateName(name, "state key"); !status.ok()) return status;
  return Key{name, keys.Hash(name)};
}

StateStore::Impl::Found StateStore::Impl::Find(const Key& key) const noexcept {
  Found found;
  found.number = keys.Find(key.name, key.hash);
  if (found) {
    found.ref = ValueRef::Unpack(records.key(found.number).value.load(std::memory_order_acquire));
    found.block = &records.block(found.ref.block);
  }
  return found;
}

Result<StateStore::Impl::Section> StateStore::Impl::EnterExisting(const Key& key, Found* found, uint64_t deadline_ns) {
  Result<Section> section = Enter(deadline_ns);
  if (!section.ok()) return section;
  *found = Find(key);
  if (!*found) return Status(Code::kStateNotFound, "no state key \"" + std::string(key.name) + "\"");
  return section;
}

Result<StateStore::Impl::Section> StateStore::Impl::EnterToWrite(const Key& key, Found* found, uint64_t deadline_ns) {
  for (;;) {
    {
      Result<Section> section = Enter(deadline_ns);
      if (!section.ok()) return section;
      *found = Find(key);
      if (*found || keys.HasRoom()) return section;
    }
    if (Status status = keys.Grow(); !status.ok()) return status;
  }
}

Result<StateStore::Impl::PinnedKey> StateStore::Impl::PinExisting(const Key& key, uint64_t deadline_ns) {
  for (;;) {
    {
      Found found;
      Result<Section> section = EnterExisting(key, &found, deadline_ns);
      if (!section.ok()) return section.status();
      const uint32_t pin = pins.Pin(found.ref.block);
      if (pin != kNone) return PinnedKey{pin, found, Describe(pin, found), Info(found, key.name)};
    }
    if (Status status = pins.Grow(); !status.ok()) return status;
  }
}

uint64_t StateStore::Impl::NextVersion() noexcept {
  return head().last_version.fetch_add(1, std::memory_order_relaxed) + 1;
}

Result<uint64_t> StateStore::Impl::Publish(const Key& key, const Found& found, Draft& draft, ValueRef ref,
                                           uint64_t bytes, uint64_t deadline_ns) {
  const uint32_t number = found ? found.number : keys.Take();
  // The block becomes the state's before it is published: what a dead participant owns is freed, what the state owns is
  // freed only when no key names it.
  if (Status status = arena.SetOwner(draft.block(), {BlockOwner::Kind::kState, 0, number}, deadline_ns); !status.ok()) {
    if (!found) keys.Give(number);
    return status;
  }
  KeyEntry& entry = records.key(number);
  segment::Block& block = records.block(draft.block());
  const uint64_t version = NextVersion();
  block.value_version = version;
  block.value_wall_ns = WallNs();
  block.value_bytes = bytes;
  entry.append_token = 0;
  if (!found) {
    entry.hash = key.hash;
    entry.name.size = static_cast<uint8_t>(key.name.size());
    std::memcpy(entry.name.bytes, key.name.data(), key.name.size());
  }
  ref.block = draft.block();
  Supersede(key, version);
  entry.value.store(ref.Pack(), std::memory_order_release);
  draft.Published();
  if (found) {
    Retire(found.ref.block);
  } else {
    keys.Link(number);
  }
  RenewHere(key, {number, ref, &block});
  return version;
}

void StateStore::Impl::AfterInsertion() {
  // Read outside the section: a wrong answer costs one needless growth or one that comes an insertion later.
  if (keys.wants_buckets()) keys.GrowBuckets();
}

void StateStore::Impl::Retire(uint32_t block) {
  if (PinCount(records.block(block)) > 0) return;
  // Where the allocator cannot be had now, a later section sweeps.
  if (!arena.Free(block, NowNs() + kFreeLimitNs).ok()) head().leaked.store(1, std::memory_order_relaxed);
}

void StateStore::Impl::FreeIfRetired(uint32_t block) {
  const uint32_t number = records.block(block).owner.id;
  if (Records::Valid(records.header().state_keys, number)) {
    const uint64_t word = records.key(number).value.load(std::memory_order_relaxed);
    if (word != 0 && ValueRef::Unpack(word).block == block) return;
  }
  Retire(block);
}

void StateStore::Impl::Unpin(uint32_t pin) {
  if (pins.Release(pin)) (void)Enter(NowNs() + kUnpinLimitNs).ok();
}

Status StateStore::Impl::CheckVersion(std::optional<uint64_t> wanted, const Found& found, const Key& key) {
  if (!wanted || *wanted == found.version()) return Status::Ok();
  const std::string name = "state key \"" + std::string(key.name) + "\"";
  if (*wanted == 0) return Status(Code::kStateVersion, name + " exists, in version " + std::to_string(found.version()));
  if (!found)
    return Status(Code::kStateVersion, name + " does not exist; version " + std::to_string(*wanted) + " was expected");
  return Status(Code::kStateVersion,
                name + " has version " + std::to_string(found.version()) + ", not " + std::to_string(*wanted));
}

Status StateStore::Impl::CheckIsValue(const Found& found, const Key& key) {
  if (!found || found.ref.kind == KeyKind::kValue) return Status::Ok();
  return Status(Code::kStateType, "state key \"" + std::string(key.name) +
                                      "\" holds an array, which is changed in place; delete it to set a value");
}

KeyInfo StateStore::Impl::Info(const Found& found, std::string_view name) const {
  return {std::string(name), found.ref.kind,  found.ref.element_type,
          found.bytes(),     found.version(), found.block->value_wall_ns};
}

Pinned StateStore::Impl::Describe(uint32_t pin, const Found& found) const noexcept {
  return {pin, found.block->offset - records.header().meta_bytes, found.bytes(), found.version()};
}

Status StateStore::Impl::Draft::Allocate(uint64_t bytes, uint64_t generous, uint64_t deadline_ns) {
  Reset();
  const BlockOwner owner{BlockOwner::Kind::kParticipant, impl_.self, 0};
  if (generous > bytes) {
    Result<segment::Arena::Allocation> more = impl_.arena.Allocate(generous, owner, deadline_ns);
    if (more.ok()) {
      allocation_ = *more;
      return Status::Ok();
    }
    if (more.status().code() != Code::kStateMemory) return more.status();
  }
  for (;;) {
    Result<segment::Arena::Allocation> allocation = impl_.arena.Allocate(bytes, owner, deadline_ns);
    if (allocation.ok()) {
      allocation_ = *allocation;
      return Status::Ok();
    }
    // Blocks that this process has let go of may be all it takes.
    if (allocation.status().code() != Code::kStateMemory || !impl_.pins.has_idle()) return allocation.status();
    if (Result<Section> section = impl_.Enter(deadline_ns); !section.ok()) return section.status();
  }
}

void StateStore::Impl::Draft::Reset() noexcept {
  if (!allocation_) return;
  // Where the allocator cannot be had, the block stays this participant's and goes with it.
  (void)impl_.arena.Free(allocation_->block, NowNs() + kFreeLimitNs).ok();
  allocation_.reset();
}

}  // namespace praas::state
