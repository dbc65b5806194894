#include "state/key_index.h"

#include <algorithm>
#include <bit>

#include "state/hash.h"

namespace praas::state {
namespace {

constexpr uint32_t kKeysPerBucket = 2;
constexpr uint32_t kBeat = 4096;  // records of a rebuild between two signs of life

}  // namespace

uint64_t KeyIndex::Hash(std::string_view name) const noexcept { return HashName(name, records_.head().hash_seed); }

uint32_t KeyIndex::BucketOf(uint64_t hash) const noexcept {
  // Buckets [0, m) with m the largest power of two not above the count, and those of [m, count) that were split off.
  const uint32_t count = records_.head().bucket_count;
  const uint32_t power = std::bit_floor(count);
  const auto wide = static_cast<uint32_t>(hash & (uint64_t{power} * 2 - 1));
  return wide < count ? wide : wide & (power - 1);
}

uint32_t KeyIndex::Find(std::string_view name, uint64_t hash) const noexcept {
  uint32_t number = records_.bucket(BucketOf(hash));
  while (number != kNone) {
    const KeyEntry& entry = records_.key(number);
    if (entry.hash == hash && View(entry.name) == name) return number;
    number = entry.next;
  }
  return kNone;
}

bool KeyIndex::HasRoom() const noexcept { return Records::HasRoom(records_.head().keys, records_.header().state_keys); }

uint32_t KeyIndex::Take() noexcept {
  return records_.Take<KeyEntry>(records_.head().keys, records_.header().state_keys);
}

void KeyIndex::Give(uint32_t number) noexcept {
  records_.Give<KeyEntry>(records_.head().keys, records_.header().state_keys, number);
}

void KeyIndex::Link(uint32_t number) noexcept {
  KeyEntry& entry = records_.key(number);
  uint32_t& bucket = records_.bucket(BucketOf(entry.hash));
  entry.next = bucket;
  bucket = number;
  // Two steps per insertion, so that the table catches up after buckets could not be committed for a while.
  for (int i = 0; i < 2 && records_.head().keys.used.load(std::memory_order_relaxed) >
                               uint64_t{kKeysPerBucket} * records_.head().bucket_count;
       ++i) {
    if (records_.head().bucket_count >= Records::Committed(records_.header().state_buckets)) break;
    Split();
  }
}

void KeyIndex::Split() noexcept {
  StateHead& head = records_.head();
  const uint32_t target = head.bucket_count;
  const uint32_t power = std::bit_floor(target);
  const uint32_t source = target - power;
  uint32_t number = records_.bucket(source);
  records_.bucket(source) = kNone;
  records_.bucket(target) = kNone;
  ++head.bucket_count;
  while (number != kNone) {
    KeyEntry& entry = records_.key(number);
    const uint32_t next = entry.next;
    uint32_t& bucket = records_.bucket((entry.hash & power) != 0 ? target : source);
    entry.next = bucket;
    bucket = number;
    number = next;
  }
}

void KeyIndex::Unlink(uint32_t number) noexcept {
  uint32_t* link = &records_.bucket(BucketOf(records_.key(number).hash));
  while (*link != kNone && *link != number) link = &records_.key(*link).next;
  if (*link == number) *link = records_.key(number).next;
  Give(number);
}

bool KeyIndex::wants_buckets() const noexcept {
  const StateHead& head = records_.head();
  const segment::Region& buckets = records_.header().state_buckets;
  return head.keys.used.load(std::memory_order_relaxed) > uint64_t{kKeysPerBucket} * head.bucket_count &&
         head.bucket_count >= Records::Committed(buckets) && head.bucket_count < buckets.capacity;
}

Status KeyIndex::Grow() const { return records_.Grow(records_.header().state_keys, "state keys"); }

void KeyIndex::GrowBuckets() const {
  // Without more buckets everything works, only slower; the caller's operation does not fail for it.
  (void)records_.Grow(records_.header().state_buckets, "state buckets").ok();
}

bool KeyIndex::Sound(uint32_t number) const noexcept {
  const KeyEntry& entry = records_.key(number);
  const ValueRef ref = ValueRef::Unpack(entry.value.load(std::memory_order_acquire));
  if (ref.kind != KeyKind::kValue && ref.kind != KeyKind::kArray) return false;
  if (entry.name.size == 0 || !records_.ValidValueBlock(ref.block)) return false;
  const segment::Block& block = records_.block(ref.block);
  return block.owner.id == number && block.value_version <= kMostCounted;
}

void KeyIndex::Rebuild() noexcept {
  StateHead& head = records_.head();
  const uint32_t committed = Records::Committed(records_.header().state_keys);

  uint32_t live = 0;
  uint32_t high = 0;
  for (uint32_t number = 1; number <= committed; ++number) {
    if (number % kBeat == 0) head.mutex.Heartbeat();
    KeyEntry& entry = records_.key(number);
    if (entry.value.load(std::memory_order_relaxed) == 0) continue;
    if (!Sound(number)) {
      entry.value.store(0, std::memory_order_release);
      continue;
    }
    ++live;
    high = number;
  }

  const uint32_t most = Records::Committed(records_.header().state_buckets);
  head.bucket_count = std::clamp(live / kKeysPerBucket, kMinBuckets, std::max(kMinBuckets, most));
  for (uint32_t i = 0; i < head.bucket_count; ++i) records_.bucket(i) = kNone;
  head.keys.free = kNone;
  head.keys.high = high;

  uint64_t last_version = head.last_version.load(std::memory_order_relaxed);
  for (uint32_t number = high; number >= 1; --number) {
    if (number % kBeat == 0) head.mutex.Heartbeat();
    KeyEntry& entry = records_.key(number);
    const uint64_t word = entry.value.load(std::memory_order_acquire);
    if (word != 0) {
      entry.hash = Hash(View(entry.name));
      const uint64_t version = records_.block(ValueRef::Unpack(word).block).value_version;
      if (const uint32_t twin = Find(View(entry.name), entry.hash); twin != kNone) {
        // Never left behind by a death; in a damaged segment the younger value wins.
        KeyEntry& other = records_.key(twin);
        const uint64_t other_word = other.value.load(std::memory_order_relaxed);
        const uint64_t other_version = records_.block(ValueRef::Unpack(other_word).block).value_version;
        --live;
        if (other_version > version) {
          entry.value.store(0, std::memory_order_release);
          entry.next = head.keys.free;
          head.keys.free = number;
          continue;
        }
        other.value.store(0, std::memory_order_release);
        Unlink(twin);
      }
      last_version = std::max(last_version, version);
      uint32_t& bucket = records_.bucket(BucketOf(entry.hash));
      entry.next = bucket;
      bucket = number;
    } else {
      entry.next = head.keys.free;
      head.keys.free = number;
    }
  }
  head.keys.used.store(live, std::memory_order_relaxed);
  head.last_version.store(last_version, std::memory_order_relaxed);
}

void KeyIndex::Check(std::vector<std::string>* violations) const {
  const StateHead& head = records_.head();
  const uint32_t committed = Records::Committed(records_.header().state_keys);
  const auto say = [violations](std::string text) { violations->push_back(std::move(text)); };
  if (head.keys.high > committed) {
    say("state keys: record " + std::to_string(head.keys.high) + " used, " + std::to_string(committed) + " committed");
    return;
  }
  if (head.bucket_count < kMinBuckets || head.bucket_count > Records::Committed(records_.header().state_buckets)) {
    say("state index: " + std::to_string(head.bucket_count) + " buckets");
    return;
  }
  uint32_t live = 0;
  for (uint32_t number = 1; number <= head.keys.high; ++number) {
    const KeyEntry& entry = records_.key(number);
    if (entry.value.load(std::memory_order_acquire) == 0) continue;
    ++live;
    const std::string what = "state key " + std::to_string(number);
    if (!Sound(number)) {
      say(what + " names a block that is not its value");
    } else if (entry.hash != Hash(View(entry.name))) {
      say(what + " has a wrong hash");
    } else if (Find(View(entry.name), entry.hash) != number) {
      say(what + " is not found by its name");
    }
  }
  if (live != head.keys.used.load(std::memory_order_relaxed)) {
    say("state keys: " + std::to_string(live) + " published, " +
        std::to_string(head.keys.used.load(std::memory_order_relaxed)) + " counted");
  }
  uint32_t linked = 0;
  for (uint32_t i = 0; i < head.bucket_count; ++i) {
    for (uint32_t number = records_.bucket(i); number != kNone; number = records_.key(number).next) {
      if (number > head.keys.high || ++linked > live) {
        say("state bucket " + std::to_string(i) + " has a chain that does not end or leaves the table");
        return;
      }
      if (BucketOf(records_.key(number).hash) != i)
        say("state key " + std::to_string(number) + " is in a wrong bucket");
    }
  }
  if (linked != live)
    say("state index: " + std::to_string(linked) + " keys linked, " + std::to_string(live) + " published");
  uint32_t unused = 0;
  for (uint32_t number = head.keys.free; number != kNone; number = records_.key(number).next) {
    if (number > head.keys.high || ++unused > head.keys.high) {
      say("state keys: the free list does not end or leaves the table");
      return;
    }
    if (records_.key(number).value.load(std::memory_order_relaxed) != 0) {
      say("state key " + std::to_string(number) + " is published and in the free list");
    }
  }
  if (unused + live != head.keys.high) {
    say("state keys: " + std::to_string(head.keys.high) + " records, " + std::to_string(live) + " published, " +
        std::to_string(unused) + " free");
  }
}

}  // namespace praas::state
