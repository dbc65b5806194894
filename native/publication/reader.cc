#include "publication/reader.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/spin.h"
#include "protocol/crc32c.h"
#include "publication/words.h"

namespace praas::publication {
namespace {

/// A small value is written within a microsecond, which takes as many looks; the writer may share the core of the
/// reader, which SpinYield then lets it have. A large value is worth a question.
constexpr uint32_t kMappedLooks = 128;
/// Each is a round trip, and so is the question.
constexpr uint32_t kFetchedLooks = 4;

Head HeadOf(std::span<const std::byte> bytes) noexcept {
  Head head;
  std::memcpy(&head, bytes.data(), sizeof head);
  return head;
}

enum class Glance { kValue, kNoValue, kAgain, kAsk, kMoved };

/// What a head says, if it says the truth.
Glance GlanceAt(const Head& head, const Location& location) noexcept {
  if (head.magic != kMagic || head.id != location.id) return Glance::kMoved;
  if (head.sequence % 2 != 0 || head.version != head.latest) return Glance::kAgain;
  if ((head.flags & kElsewhere) != 0) return Glance::kAsk;
  if ((head.flags & kAbsent) != 0) return Glance::kNoValue;
  return head.bytes <= location.capacity ? Glance::kValue : Glance::kAsk;
}

}  // namespace

Outcome ReadMapped(std::span<const std::byte> area, const Location& location, const Memory& memory) {
  const std::byte* const block = area.data() + location.offset;
  const auto* const sequence = reinterpret_cast<const uint64_t*>(block + offsetof(Head, sequence));
  SpinYield spin;
  std::span<std::byte> into;
  for (uint32_t look = 0; look < kMappedLooks; ++look, spin.Step()) {
    const uint64_t before = __atomic_load_n(sequence, __ATOMIC_ACQUIRE);
    Head head;
    CopyFromShared(reinterpret_cast<std::byte*>(&head), block, sizeof head);
    head.sequence = before;
    const Glance glance = GlanceAt(head, location);
    if (glance == Glance::kMoved) return {.verdict = Verdict::kMoved};
    if (glance == Glance::kAgain) continue;
    if (glance == Glance::kValue) {
      if (into.size() != head.bytes || into.data() == nullptr) into = memory(head.bytes);
      if (into.size() != head.bytes) return {.verdict = Verdict::kAsk};
      CopyFromShared(into.data(), block + kHeadBytes, head.bytes);
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    if (__atomic_load_n(sequence, __ATOMIC_RELAXED) != before) continue;
    if (glance == Glance::kAsk) return {.verdict = Verdict::kAsk};
    return {.verdict = Verdict::kRead, .version = head.version, .absent = glance == Glance::kNoValue, .value = into};
  }
  return {.verdict = Verdict::kAsk};
}

Fetched Examine(std::span<const std::byte> fetched, const Location& location) {
  if (fetched.size() < kHeadBytes) return {.state = Fetched::State::kMore, .bytes = kHeadBytes};
  const Head head = HeadOf(fetched);
  const auto whole = [](Outcome outcome) { return Fetched{.state = Fetched::State::kWhole, .outcome = outcome}; };
  switch (GlanceAt(head, location)) {
    case Glance::kMoved:
      return whole({.verdict = Verdict::kMoved});
    case Glance::kAgain:
      return {.state = Fetched::State::kAgain};
    case Glance::kAsk:
      return whole({.verdict = Verdict::kAsk});
    case Glance::kNoValue:
      if (ChecksumOf(head, 0) != head.crc) return {.state = Fetched::State::kAgain};
      return whole({.verdict = Verdict::kRead, .version = head.version, .absent = true});
    case Glance::kValue:
      break;
  }
  if (head.bytes > fetched.size() - kHeadBytes) {
    return {.state = Fetched::State::kMore, .bytes = kHeadBytes + head.bytes};
  }
  const std::span<const std::byte> value = fetched.subspan(kHeadBytes, head.bytes);
  if (ChecksumOf(head, protocol::Crc32c(value)) != head.crc) return {.state = Fetched::State::kAgain};
  return whole({.verdict = Verdict::kRead, .version = head.version, .value = value});
}

Outcome ReadFetched(const Fetch& fetch, const Location& location, uint64_t expected) {
  uint64_t bytes = kHeadBytes + std::min(expected, location.capacity);
  for (uint32_t look = 0; look < kFetchedLooks; ++look) {
    const std::span<const std::byte> got = fetch(location, bytes);
    if (got.size() < bytes) break;
    const Fetched examined = Examine(got, location);
    if (examined.state == Fetched::State::kWhole) return examined.outcome;
    if (examined.state == Fetched::State::kMore) bytes = examined.bytes;
  }
  return {.verdict = Verdict::kAsk};
}

}  // namespace praas::publication
