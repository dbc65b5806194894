#include "state/publication_table.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "publication/layout.h"
#include "state/hash.h"

namespace praas::state {

uint32_t PublicationTable::Find(std::string_view name, uint64_t hash) const noexcept {
  uint32_t number = records_.head().publication_buckets[hash % kPublicationBuckets];
  while (number != kNone) {
    const PublicationRecord& record = records_.publication(number);
    if (record.hash == hash && View(record.name) == name) return number;
    number = record.next;
  }
  return kNone;
}

PublicationWord PublicationTable::Where(uint32_t number) const noexcept {
  return PublicationWord::Unpack(records_.publication(number).word.load(std::memory_order_relaxed));
}

bool PublicationTable::HasRoom() const noexcept {
  return Records::HasRoom(records_.head().publications, records_.header().publications);
}

std::optional<uint32_t> PublicationTable::FindSpace(uint64_t pages, uint64_t area_pages) const {
  std::vector<std::pair<uint64_t, uint64_t>> taken;  // first and end
  for (uint32_t number = 1; number <= high(); ++number) {
    const PublicationWord word = Where(number);
    if (word.placed()) taken.emplace_back(word.first, uint64_t{word.first} + word.pages);
  }
  std::sort(taken.begin(), taken.end());
  uint64_t first = 0;
  for (const auto& [begin, end] : taken) {
    if (begin >= first + pages) break;
    first = std::max(first, end);
  }
  if (pages > area_pages || first > area_pages - pages) return std::nullopt;
  return static_cast<uint32_t>(first);
}

uint32_t PublicationTable::Add(std::string_view name, uint64_t hash) noexcept {
  StateHead& head = records_.head();
  const uint32_t number = records_.Take<PublicationRecord>(head.publications, records_.header().publications);
  PublicationRecord& record = records_.publication(number);
  record.hash = hash;
  record.id = NewId();
  record.copy_token = 0;
  record.name.size = static_cast<uint8_t>(name.size());
  std::memcpy(record.name.bytes, name.data(), name.size());
  uint32_t& bucket = head.publication_buckets[hash % kPublicationBuckets];
  record.next = bucket;
  bucket = number;
  return number;
}

void PublicationTable::Move(uint32_t number, PublicationWord to) noexcept {
  records_.publication(number).word.store(to.Pack(), std::memory_order_release);
}

void PublicationTable::Remove(uint32_t number) noexcept {
  StateHead& head = records_.head();
  PublicationRecord& record = records_.publication(number);
  record.word.store(0, std::memory_order_release);
  uint32_t* link = &head.publication_buckets[record.hash % kPublicationBuckets];
  while (*link != kNone && *link != number) link = &records_.publication(*link).next;
  if (*link == number) *link = record.next;
  records_.Give<PublicationRecord>(head.publications, records_.header().publications, number);
}

bool PublicationTable::BeingCopied(uint32_t number, const PinTable& pins) const noexcept {
  const PublicationRecord& record = records_.publication(number);
  return record.copy_token != 0 && pins.Pins(record.copy_pin, record.copy_block);
}

uint64_t PublicationTable::PlaceAnew(uint64_t area_bytes) noexcept {
  const uint64_t area_pages = area_bytes / publication::kPageBytes;
  uint64_t next = 0;
  for (uint32_t number = 1; number <= Records::Committed(records_.header().publications); ++number) {
    PublicationRecord& record = records_.publication(number);
    PublicationWord word = Where(number);
    record.copy_token = 0;
    if (word.pages == 0) continue;
    const bool fits = word.pages <= area_pages - next;
    word.first = fits ? static_cast<uint32_t>(next) : PublicationWord::kNowhere;
    if (fits) next += word.pages;
    Move(number, word);
  }
  return next * publication::kPageBytes;
}

/// Names and sizes only: where a block lies is for its readers and writers to check.
bool PublicationTable::Sound(uint32_t number) const noexcept {
  const PublicationRecord& record = records_.publication(number);
  return record.name.size > 0 && record.id != 0 && record.id <= kMostCounted && Where(number).pages > 0;
}

void PublicationTable::Rebuild() noexcept {
  StateHead& head = records_.head();
  std::fill(std::begin(head.publication_buckets), std::end(head.publication_buckets), kNone);
  head.publications.free = kNone;
  head.publications.high = 0;
  uint32_t used = 0;
  for (uint32_t number = Records::Committed(records_.header().publications); number >= 1; --number) {
    PublicationRecord& record = records_.publication(number);
    bool keep = record.word.load(std::memory_order_acquire) != 0;
    if (keep) {
      record.hash = HashName(View(record.name), head.hash_seed);
      // Twins are never left behind by a death.
      keep = Sound(number) && Find(View(record.name), record.hash) == kNone;
      if (!keep) record.word.store(0, std::memory_order_release);
    }
    if (keep) {
      ++used;
      if (record.copy_token > kMostCounted) record.copy_token = 0;
      if (head.publications.high == 0) head.publications.high = number;
      head.last_ticket = std::max({head.last_ticket, record.id, record.copy_token});
      uint32_t& bucket = head.publication_buckets[record.hash % kPublicationBuckets];
      record.next = bucket;
      bucket = number;
    } else if (head.publications.high != 0) {
      record.next = head.publications.free;
      head.publications.free = number;
    }
  }
  head.publications.used.store(used, std::memory_order_relaxed);
}

void PublicationTable::Check(std::vector<std::string>* violations) const {
  const StateHead& head = records_.head();
  const auto say = [violations](std::string text) { violations->push_back(std::move(text)); };
  uint32_t live = 0;
  std::vector<std::pair<uint64_t, uint64_t>> taken;
  for (uint32_t number = 1; number <= head.publications.high; ++number) {
    const PublicationRecord& record = records_.publication(number);
    const PublicationWord word = Where(number);
    if (record.word.load(std::memory_order_relaxed) == 0) continue;
    ++live;
    const std::string what = "publication " + std::to_string(number);
    if (!Sound(number)) {
      say(what + " has no name, id or size");
    } else if (record.hash != HashName(View(record.name), head.hash_seed)) {
      say(what + " has a wrong hash");
    } else if (Find(View(record.name), record.hash) != number) {
      say(what + " is not found by its name");
    }
    if (word.placed()) taken.emplace_back(word.first, uint64_t{word.first} + word.pages);
  }
  if (live != head.publications.used.load(std::memory_order_relaxed)) {
    say("publications: " + std::to_string(live) + " in use, " +
        std::to_string(head.publications.used.load(std::memory_order_relaxed)) + " counted");
  }
  std::sort(taken.begin(), taken.end());
  for (size_t i = 1; i < taken.size(); ++i) {
    if (taken[i].first < taken[i - 1].second) {
      say("publications: two have page " + std::to_string(taken[i].first) + " of the area");
    }
  }
}

}  // namespace praas::state
