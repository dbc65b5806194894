#include <algorithm>
#include <iterator>

#include "state/hash.h"
#include "state/lock_table.h"

/// Making the lock queues anew, and checking them.
namespace praas::state {
namespace {

HolderWord WordOf(const LockHolder& holder) noexcept {
  return HolderWord::Unpack(holder.word.load(std::memory_order_acquire));
}

bool Sound(const HolderWord& word) noexcept {
  return (word.state == HolderState::kWaiting || word.state == HolderState::kGranted) &&
         (word.mode == static_cast<uint8_t>(StateStore::LockMode::kRead) ||
          word.mode == static_cast<uint8_t>(StateStore::LockMode::kWrite));
}

template <typename Get>
uint32_t CountFree(uint32_t first, uint32_t high, Get next) {
  uint32_t count = 0;
  for (uint32_t number = first; number != kNone && number <= high && count <= high; number = next(number)) ++count;
  return count;
}

}  // namespace

void LockTable::Clear() noexcept {
  const uint32_t committed = Records::Committed(records_.header().lock_holders);
  for (uint32_t number = 1; number <= committed; ++number) {
    records_.holder(number).word.store(0, std::memory_order_release);
  }
}

void LockTable::Rebuild() {
  StateHead& head = records_.head();
  const segment::Header& header = records_.header();
  const uint32_t locks = Records::Committed(header.locks);
  const uint32_t holders = Records::Committed(header.lock_holders);

  std::fill(std::begin(head.lock_buckets), std::end(head.lock_buckets), kNone);
  std::fill(std::begin(head.owner_buckets), std::end(head.owner_buckets), kNone);
  for (uint32_t number = 1; number <= locks; ++number) {
    LockRecord& record = records_.lock(number);
    record.first = record.last = record.first_waiting = kNone;
    record.readers = record.writers = 0;
    if (record.used.load(std::memory_order_relaxed) != 0 && record.name.size == 0) {
      record.used.store(0, std::memory_order_release);
    }
  }

  std::vector<uint32_t> live;
  head.holders.high = 0;
  for (uint32_t number = 1; number <= holders; ++number) {
    LockHolder& holder = records_.holder(number);
    const HolderWord word = WordOf(holder);
    if (word.state == HolderState::kFree) continue;
    if (!Sound(word) || holder.ticket > kMostCounted || !Records::Valid(header.locks, word.lock) ||
        records_.lock(word.lock).used.load(std::memory_order_relaxed) == 0) {
      holder.word.store(0, std::memory_order_release);
      continue;
    }
    live.push_back(number);
    head.holders.high = number;
  }
  // Holders in order of arrival, granted ones first: what a queue looks like.
  std::sort(live.begin(), live.end(), [this](uint32_t a, uint32_t b) {
    const LockHolder& first = records_.holder(a);
    const LockHolder& second = records_.holder(b);
    const bool first_waits = WordOf(first).state == HolderState::kWaiting;
    const bool second_waits = WordOf(second).state == HolderState::kWaiting;
    return first_waits != second_waits ? second_waits : first.ticket < second.ticket;
  });
  for (const uint32_t number : live) {
    head.last_ticket = std::max(head.last_ticket, records_.holder(number).ticket);
    Enqueue(WordOf(records_.holder(number)).lock, number);
    LinkOwner(number);
  }
  head.holders.free = kNone;
  for (uint32_t number = head.holders.high; number >= 1; --number) {
    LockHolder& holder = records_.holder(number);
    if (WordOf(holder).state != HolderState::kFree) continue;
    holder.next = head.holders.free;
    head.holders.free = number;
  }
  head.holders.used.store(static_cast<uint32_t>(live.size()), std::memory_order_relaxed);

  head.locks.free = kNone;
  head.locks.high = 0;
  uint32_t used = 0;
  for (uint32_t number = locks; number >= 1; --number) {
    LockRecord& record = records_.lock(number);
    if (record.first == kNone) record.used.store(0, std::memory_order_release);
    if (record.used.load(std::memory_order_relaxed) != 0) {
      ++used;
      if (head.locks.high == 0) head.locks.high = number;
      record.hash = HashName(View(record.name), head.hash_seed);
      uint32_t& bucket = head.lock_buckets[record.hash % kLockBuckets];
      record.next = bucket;
      bucket = number;
    } else if (head.locks.high != 0) {
      record.next = head.locks.free;
      head.locks.free = number;
    }
  }
  head.locks.used.store(used, std::memory_order_relaxed);

  // Whoever died may have released and not yet granted, or granted and not yet told.
  for (uint32_t number = 1; number <= head.locks.high; ++number) {
    if (records_.lock(number).used.load(std::memory_order_relaxed) != 0) GrantNext(number);
  }
  TellHolders(1, head.holders.high);
}

void LockTable::Check(std::vector<std::string>* violations) const {
  const StateHead& head = records_.head();
  const segment::Header& header = records_.header();
  const auto say = [violations](std::string text) { violations->push_back(std::move(text)); };
  if (head.locks.high > Records::Committed(header.locks) ||
      head.holders.high > Records::Committed(header.lock_holders)) {
    say("locks: more records used than committed");
    return;
  }
  uint32_t live = 0;
  for (uint32_t number = 1; number <= head.holders.high; ++number) {
    const HolderWord word = WordOf(records_.holder(number));
    if (word.state == HolderState::kFree) continue;
    ++live;
    if (!Sound(word) || word.lock == kNone || word.lock > head.locks.high ||
        records_.lock(word.lock).used.load(std::memory_order_relaxed) == 0) {
      say("lock holder " + std::to_string(number) + " holds no lock");
    }
  }
  if (live != head.holders.used.load(std::memory_order_relaxed)) say("lock holders are counted wrongly");

  uint32_t used = 0;
  uint32_t queued = 0;
  for (uint32_t number = 1; number <= head.locks.high; ++number) {
    const LockRecord& record = records_.lock(number);
    if (record.used.load(std::memory_order_relaxed) == 0) continue;
    ++used;
    const std::string what = "lock " + std::to_string(number);
    if (Find(View(record.name), record.hash) != number) say(what + " is not found by its name");
    if (record.first == kNone) say(what + " has no holder");
    if (record.writers > 1 || (record.writers == 1 && record.readers > 0)) say(what + " is shared with a writer");
    uint32_t readers = 0;
    uint32_t writers = 0;
    uint32_t previous = kNone;
    uint32_t first_waiting = kNone;
    for (uint32_t at = record.first; at != kNone; at = records_.holder(at).next) {
      if (at > head.holders.high || ++queued > live) {
        say(what + " has a queue that does not end or leaves the table");
        return;
      }
      const LockHolder& holder = records_.holder(at);
      const HolderWord word = WordOf(holder);
      if (word.lock != number) say(what + " queues a holder of another lock");
      if (holder.previous != previous) say(what + " has a broken queue");
      if (word.state == HolderState::kWaiting) {
        if (first_waiting == kNone) first_waiting = at;
      } else if (first_waiting != kNone) {
        say(what + " granted out of order");
      } else {
        ++(word.mode == static_cast<uint8_t>(Mode::kWrite) ? writers : readers);
      }
      previous = at;
    }
    if (record.last != previous || record.first_waiting != first_waiting) say(what + " has a broken queue");
    if (record.readers != readers || record.writers != writers) say(what + " counts its holders wrongly");
    if (first_waiting != kNone && MayGrant(record, WordOf(records_.holder(first_waiting)).mode)) {
      say(what + " is free but somebody waits");
    }
  }
  if (queued != live) say("some lock holders are in no queue");
  if (used != head.locks.used.load(std::memory_order_relaxed)) say("locks are counted wrongly");
  if (CountFree(head.locks.free, head.locks.high, [this](uint32_t n) { return records_.lock(n).next; }) + used !=
          head.locks.high ||
      CountFree(head.holders.free, head.holders.high, [this](uint32_t n) { return records_.holder(n).next; }) + live !=
          head.holders.high) {
    say("locks: some records are neither used nor free");
  }
}

}  // namespace praas::state
