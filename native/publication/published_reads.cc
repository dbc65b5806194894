#include "publication/published_reads.h"

#include <cstring>

namespace praas::publication {
namespace {

/// Places that are remembered: as many as a process publishes keys.
constexpr size_t kMaxKnown = 4096;

}  // namespace

Outcome PublishedReads::Read(std::string_view key, const Memory& memory) {
  const auto found = known_.find(key);
  if (found == known_.end()) return {.verdict = Verdict::kAsk};
  Outcome outcome = ReadAt(found->second, memory);
  if (outcome.verdict == Verdict::kMoved) {
    known_.erase(found);
    return {.verdict = Verdict::kAsk};
  }
  if (outcome.verdict == Verdict::kRead) {
    found->second.bytes = outcome.value.size();
    ++reads_;
  }
  return outcome;
}

Outcome PublishedReads::ReadAt(const Known& known, const Memory& memory) const {
  if (!area_.empty()) return ReadMapped(area_, known.location, memory);
  Outcome outcome = ReadFetched(fetch_, known.location, known.bytes);
  if (outcome.verdict != Verdict::kRead || outcome.absent) return outcome;
  const std::span<std::byte> into = memory(outcome.value.size());
  if (into.size() != outcome.value.size()) return {.verdict = Verdict::kAsk};
  if (!into.empty()) std::memcpy(into.data(), outcome.value.data(), into.size());
  outcome.value = into;
  return outcome;
}

void PublishedReads::Learn(std::string_view key, const std::optional<Location>& location) {
  if (area_.empty() && !fetch_) return;
  if (const auto known = known_.find(key); known != known_.end()) known_.erase(known);
  if (!location || !InArea(*location, area_.empty() ? kMaxAreaBytes : area_.size())) return;
  if (area_.empty() && location->address == 0) return;
  // Of keys that were unpublished long ago.
  if (known_.size() >= kMaxKnown) known_.clear();
  known_.emplace(key, Known{.location = *location, .bytes = 0});
}

std::optional<Location> PublishedReads::Find(std::string_view key) const {
  const auto found = known_.find(key);
  if (found == known_.end()) return std::nullopt;
  return found->second.location;
}

}  // namespace praas::publication
