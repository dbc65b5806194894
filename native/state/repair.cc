#include <algorithm>
#include <unordered_set>

#include "base/clock.h"
#include "state/store_impl.h"

/// What happens after deaths: of whoever held the mutex, of a worker, of the host.
namespace praas::state {

using segment::BlockOwner;

/// Everything derived, made anew. Changes no truth but to drop what cannot be right, so it may be interrupted and
/// repeated.
void StateStore::Impl::Repair() {
  segment::RobustMutex& mutex = head().mutex;
  // Counters go on from the records.
  if (head().last_version.load(std::memory_order_relaxed) > kMostCounted) head().last_version.store(0);
  if (head().last_ticket > kMostCounted) head().last_ticket = 0;
  keys.Rebuild();
  mutex.Heartbeat();
  pins.Rebuild();
  mutex.Heartbeat();
  locks.Rebuild();
  mutex.Heartbeat();
  publications.Rebuild();
  mutex.Heartbeat();
  // The one that died may have published a block and not freed the one before, or taken one and not published it.
  const Status swept = Sweep(/*values_only=*/true, NowNs() + kFreeLimitNs);
  head().leaked.store(swept.ok() ? 0 : 1, std::memory_order_relaxed);
}

/// Frees blocks of the state that are neither a key's value nor pinned; of everybody else too unless `values_only`.
Status StateStore::Impl::Sweep(bool values_only, uint64_t deadline_ns) {
  std::unordered_set<uint32_t> kept;
  for (uint32_t pin = 1; pin <= head().pins.high; ++pin) {
    const uint64_t word = records.pin(pin).word.load(std::memory_order_relaxed);
    if (word != 0) kept.insert(PinWord::Unpack(word).block);
  }
  const auto dead = [this, values_only, &kept](uint32_t number, const segment::Block& block) {
    if (block.owner.kind == BlockOwner::Kind::kFree) return false;
    if (block.owner.kind != BlockOwner::Kind::kState) return !values_only;
    const uint32_t key = block.owner.id;
    if (Records::Valid(records.header().state_keys, key)) {
      const uint64_t word = records.key(key).value.load(std::memory_order_relaxed);
      if (word != 0 && ValueRef::Unpack(word).block == number) return false;
    }
    return !kept.contains(number);
  };
  Result<uint32_t> freed = arena.ReclaimIf(dead, deadline_ns);
  return freed.ok() ? Status::Ok() : freed.status();
}

Status StateStore::ReclaimParticipant(uint16_t participant, uint64_t deadline_ns) {
  constexpr uint32_t kBatch = 256;  // records per section
  const auto in_batches = [&](auto high, auto step) -> Status {
    for (uint32_t first = 1;; first += kBatch) {
      Result<Impl::Section> section = impl_->Enter(deadline_ns);
      if (!section.ok()) return section.status();
      if (first > high()) return Status::Ok();
      step(first);
    }
  };
  Status status = in_batches([this] { return impl_->locks.high(); },
                             [&](uint32_t first) { impl_->locks.Reclaim(participant, first, kBatch); });
  if (!status.ok()) return status;
  // It may have granted locks to others and died before it could tell them.
  status = in_batches([this] { return impl_->locks.high(); },
                      [&](uint32_t first) { impl_->locks.TellHolders(first, kBatch); });
  if (!status.ok()) return status;
  const auto unpinned = [this](uint32_t block) { impl_->FreeIfRetired(block); };
  status = in_batches([this] { return impl_->pins.high(); },
                      [&](uint32_t first) { impl_->pins.Reclaim(participant, first, kBatch, unpinned); });
  if (!status.ok()) return status;
  // What it had not published. Blocks become the state's before they are published, inside a section; should it have
  // died in one, the section above has made that whole.
  Result<uint32_t> freed = impl_->arena.ReclaimIf(
      [participant](uint32_t, const segment::Block& block) {
        return block.owner.kind == BlockOwner::Kind::kParticipant && block.owner.participant == participant;
      },
      deadline_ns);
  if (!freed.ok()) return freed.status();
  // It may have died over a published value.
  return RenewAll(deadline_ns);
}

Status StateStore::RepairAfterHost(uint64_t deadline_ns) {
  segment::Header& header = impl_->records.header();
  StateHead& head = impl_->head();
  // A host that died while it made the segment may not have got as far as this.
  for (segment::Region* region : {&header.state_buckets, &header.state_keys, &header.pins, &header.locks,
                                  &header.lock_holders, &header.publications}) {
    if (Status status =
            impl_->segment.Commit(*region, std::min(region->capacity, segment::kPageBytes / region->stride));
        !status.ok()) {
      return status;
    }
  }
  head.dirty.store(1, std::memory_order_release);
  if (Status status = head.mutex.Init(); !status.ok()) return status;
  // Before the first section, whose repair then finds nothing of theirs.
  impl_->pins.Clear();
  impl_->locks.Clear();
  head.area_committed.store(0, std::memory_order_relaxed);
  if (impl_->area != nullptr) {
    const uint64_t needed = impl_->publications.PlaceAnew(impl_->area->bytes());
    const bool committed = needed == 0 || impl_->area->Commit(needed).ok();
    // Without memory for them they stay published, and nowhere to be read.
    if (!committed) (void)impl_->publications.PlaceAnew(0);
    if (committed) head.area_committed.store(needed, std::memory_order_relaxed);
  }
  {
    Result<Impl::Section> section = impl_->Enter(deadline_ns);
    if (!section.ok()) return section.status();
    impl_->locks.granted().clear();
    return impl_->Sweep(/*values_only=*/false, deadline_ns);
  }
}

std::vector<std::string> StateStore::Impl::Check() {
  std::vector<std::string> violations;
  Result<Section> section = Enter(NowNs() + 10'000'000'000u);
  if (!section.ok()) return {section.status().message()};
  keys.Check(&violations);
  pins.Check(&violations);
  locks.Check(&violations);
  publications.Check(&violations);
  std::unordered_set<uint32_t> kept;
  for (uint32_t pin = 1; pin <= head().pins.high; ++pin) {
    const uint64_t word = records.pin(pin).word.load(std::memory_order_relaxed);
    if (word != 0) kept.insert(PinWord::Unpack(word).block);
  }
  // The walk is what is wanted here, nothing is freed: only under the arena's mutex are its descriptors at rest.
  const auto look = [&](uint32_t number, const segment::Block& block) {
    if (block.owner.kind != BlockOwner::Kind::kState || kept.contains(number)) return false;
    const uint32_t key = block.owner.id;
    const bool named = Records::Valid(records.header().state_keys, key) &&
                       ValueRef::Unpack(records.key(key).value.load(std::memory_order_relaxed)).block == number;
    if (!named && head().leaked.load(std::memory_order_relaxed) == 0) {
      violations.push_back("block " + std::to_string(number) + " is the state's, but no key's value and not pinned");
    }
    return false;
  };
  if (Result<uint32_t> walked = arena.ReclaimIf(look, NowNs() + 10'000'000'000u); !walked.ok()) {
    violations.push_back(walked.status().message());
  }
  return violations;
}

std::vector<std::string> StateStore::Check() { return impl_->Check(); }

}  // namespace praas::state
