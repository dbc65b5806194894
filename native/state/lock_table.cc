#include "state/lock_table.h"

#include <algorithm>
#include <cstring>

#include "state/hash.h"

namespace praas::state {
namespace {

// A handle is a record number and the low bits of its generation.
constexpr unsigned kNumberBits = 20;
constexpr uint32_t kNumberMask = (1u << kNumberBits) - 1;

constexpr auto kRead = static_cast<uint8_t>(StateStore::LockMode::kRead);
constexpr auto kWrite = static_cast<uint8_t>(StateStore::LockMode::kWrite);

HolderWord WordOf(const LockHolder& holder) noexcept {
  return HolderWord::Unpack(holder.word.load(std::memory_order_acquire));
}

}  // namespace

bool LockTable::HasRoom() const noexcept {
  const StateHead& head = records_.head();
  return Records::HasRoom(head.locks, records_.header().locks) &&
         Records::HasRoom(head.holders, records_.header().lock_holders);
}

Status LockTable::Grow() const {
  StateHead& head = records_.head();
  segment::Header& header = records_.header();
  // Read outside the mutex: a wrong guess grows what had room, or leaves growing to the next attempt.
  if (!Records::HasRoom(head.locks, header.locks)) {
    if (Status status = records_.Grow(header.locks, "locks"); !status.ok()) return status;
  }
  if (!Records::HasRoom(head.holders, header.lock_holders)) return records_.Grow(header.lock_holders, "lock holders");
  return Status::Ok();
}

uint32_t LockTable::Find(std::string_view name, uint64_t hash) const noexcept {
  uint32_t number = records_.head().lock_buckets[hash % kLockBuckets];
  while (number != kNone) {
    const LockRecord& record = records_.lock(number);
    if (record.hash == hash && View(record.name) == name) return number;
    number = record.next;
  }
  return kNone;
}

uint32_t& LockTable::OwnerBucket(uint16_t participant, uint64_t id) const noexcept {
  const uint64_t mixed = (id ^ static_cast<uint64_t>(participant) << 48) * 0x9e37'79b9'7f4a'7c15u;
  return records_.head().owner_buckets[(mixed >> 32) % kOwnerBuckets];
}

bool LockTable::MayGrant(const LockRecord& lock, uint8_t mode) const noexcept {
  return lock.writers == 0 && (mode == kRead || lock.readers == 0);
}

StateStore::LockTicket LockTable::Add(std::string_view name, Mode mode, Owner owner) noexcept {
  StateHead& head = records_.head();
  const uint64_t hash = HashName(name, head.hash_seed);
  uint32_t number = Find(name, hash);
  if (number == kNone) {
    number = records_.Take<LockRecord>(head.locks, records_.header().locks);
    LockRecord& record = records_.lock(number);
    record.hash = hash;
    record.first = record.last = record.first_waiting = kNone;
    record.readers = record.writers = 0;
    record.name.size = static_cast<uint8_t>(name.size());
    std::memcpy(record.name.bytes, name.data(), name.size());
    record.used.store(1, std::memory_order_release);
    uint32_t& bucket = head.lock_buckets[hash % kLockBuckets];
    record.next = bucket;
    bucket = number;
  }

  const uint32_t holder_number = records_.Take<LockHolder>(head.holders, records_.header().lock_holders);
  LockHolder& holder = records_.holder(holder_number);
  LockRecord& record = records_.lock(number);
  const uint32_t generation = holder.generation.load(std::memory_order_relaxed) + 1;
  holder.generation.store(generation, std::memory_order_relaxed);
  holder.owner_id = owner.id;
  holder.ticket = ++head.last_ticket;
  const auto wanted = static_cast<uint8_t>(mode);
  const bool granted = record.first_waiting == kNone && MayGrant(record, wanted);
  const HolderWord word{granted ? HolderState::kGranted : HolderState::kWaiting, wanted, owner.participant, number};
  holder.word.store(word.Pack(), std::memory_order_release);
  Enqueue(number, holder_number);
  LinkOwner(holder_number);
  return {(generation << kNumberBits) | holder_number, granted};
}

void LockTable::Enqueue(uint32_t lock, uint32_t holder_number) noexcept {
  LockRecord& record = records_.lock(lock);
  LockHolder& holder = records_.holder(holder_number);
  const HolderWord word = WordOf(holder);
  holder.previous = record.last;
  holder.next = kNone;
  (record.last == kNone ? record.first : records_.holder(record.last).next) = holder_number;
  record.last = holder_number;
  if (word.state == HolderState::kWaiting) {
    if (record.first_waiting == kNone) record.first_waiting = holder_number;
  } else {
    ++(word.mode == kWrite ? record.writers : record.readers);
  }
}

void LockTable::LinkOwner(uint32_t holder_number) noexcept {
  LockHolder& holder = records_.holder(holder_number);
  uint32_t& bucket = OwnerBucket(WordOf(holder).participant, holder.owner_id);
  holder.owner_next = bucket;
  bucket = holder_number;
}

uint32_t LockTable::HolderOf(uint32_t handle) const noexcept {
  const uint32_t number = handle & kNumberMask;
  if (!Records::Valid(records_.header().lock_holders, number)) return kNone;
  const LockHolder& holder = records_.holder(number);
  if (WordOf(holder).state == HolderState::kFree) return kNone;
  const uint32_t generation = holder.generation.load(std::memory_order_relaxed);
  return (generation << kNumberBits) == (handle & ~kNumberMask) ? number : kNone;
}

bool LockTable::Granted(uint32_t handle) const noexcept {
  const uint32_t number = HolderOf(handle);
  return number != kNone && WordOf(records_.holder(number)).state == HolderState::kGranted;
}

bool LockTable::Remove(uint32_t handle) {
  const uint32_t number = HolderOf(handle);
  if (number == kNone) return false;
  Drop(number);
  return true;
}

bool LockTable::RemoveOwned(Owner owner, uint32_t limit) {
  const uint32_t& bucket = OwnerBucket(owner.participant, owner.id);
  uint32_t number = bucket;
  while (number != kNone) {
    const LockHolder& holder = records_.holder(number);
    const uint32_t next = holder.owner_next;
    if (holder.owner_id == owner.id && WordOf(holder).participant == owner.participant) {
      if (limit-- == 0) return false;
      Drop(number);
    }
    number = next;
  }
  return true;
}

bool LockTable::empty() const noexcept { return records_.head().holders.used.load(std::memory_order_acquire) == 0; }

void LockTable::Drop(uint32_t number) {
  StateHead& head = records_.head();
  LockHolder& holder = records_.holder(number);
  const HolderWord word = WordOf(holder);
  LockRecord& record = records_.lock(word.lock);
  holder.word.store(0, std::memory_order_release);

  if (word.state == HolderState::kGranted) --(word.mode == kWrite ? record.writers : record.readers);
  if (record.first_waiting == number) record.first_waiting = holder.next;
  (holder.previous == kNone ? record.first : records_.holder(holder.previous).next) = holder.next;
  (holder.next == kNone ? record.last : records_.holder(holder.next).previous) = holder.previous;
  uint32_t* link = &OwnerBucket(word.participant, holder.owner_id);
  while (*link != kNone && *link != number) link = &records_.holder(*link).owner_next;
  if (*link == number) *link = holder.owner_next;

  GrantNext(word.lock);
  FreeIfUnused(word.lock);
  records_.Give<LockHolder>(head.holders, records_.header().lock_holders, number);
}

void LockTable::GrantNext(uint32_t lock) {
  LockRecord& record = records_.lock(lock);
  while (record.first_waiting != kNone) {
    LockHolder& holder = records_.holder(record.first_waiting);
    HolderWord word = WordOf(holder);
    if (!MayGrant(record, word.mode)) return;
    word.state = HolderState::kGranted;
    holder.word.store(word.Pack(), std::memory_order_release);
    ++(word.mode == kWrite ? record.writers : record.readers);
    record.first_waiting = holder.next;
    if (std::find(granted_.begin(), granted_.end(), word.participant) == granted_.end()) {
      granted_.push_back(word.participant);
    }
  }
}

void LockTable::FreeIfUnused(uint32_t lock) noexcept {
  StateHead& head = records_.head();
  LockRecord& record = records_.lock(lock);
  if (record.first != kNone) return;
  record.used.store(0, std::memory_order_release);
  uint32_t* link = &head.lock_buckets[record.hash % kLockBuckets];
  while (*link != kNone && *link != lock) link = &records_.lock(*link).next;
  if (*link == lock) *link = record.next;
  records_.Give<LockRecord>(head.locks, records_.header().locks, lock);
}

void LockTable::Reclaim(uint16_t participant, uint32_t first, uint32_t count) {
  const uint32_t high = records_.head().holders.high;
  for (uint32_t number = first; number <= high && number - first < count; ++number) {
    const HolderWord word = WordOf(records_.holder(number));
    if (word.state != HolderState::kFree && word.participant == participant) Drop(number);
  }
}

void LockTable::TellHolders(uint32_t first, uint32_t count) {
  const uint32_t high = records_.head().holders.high;
  for (uint32_t number = first; number <= high && number - first < count; ++number) {
    const HolderWord word = WordOf(records_.holder(number));
    if (word.state != HolderState::kGranted) continue;
    if (std::find(granted_.begin(), granted_.end(), word.participant) == granted_.end()) {
      granted_.push_back(word.participant);
    }
  }
}

}  // namespace praas::state
