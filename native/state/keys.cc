#include <algorithm>

#include "state/reserved.h"
#include "state/store_impl.h"

/// Listing keys. A key keeps its record for as long as it exists, so going through the records once meets every key
/// that is there all the time exactly once, however much others insert, delete and split meanwhile.
namespace praas::state {
namespace {

constexpr uint32_t kBatch = 128;  // records looked at per section

bool Before(const KeyInfo& a, const KeyInfo& b) noexcept { return a.key < b.key; }

/// Sorts and keeps the first `limit`. A key that was deleted and made anew meanwhile may have been met twice, in two
/// records: the younger one is it.
void Trim(std::vector<KeyInfo>* keys, size_t limit) {
  std::sort(keys->begin(), keys->end(),
            [](const KeyInfo& a, const KeyInfo& b) { return a.key != b.key ? Before(a, b) : a.version > b.version; });
  keys->erase(
      std::unique(keys->begin(), keys->end(), [](const KeyInfo& a, const KeyInfo& b) { return a.key == b.key; }),
      keys->end());
  if (keys->size() > limit) keys->resize(limit);
}

}  // namespace

Result<std::vector<KeyInfo>> StateStore::Keys(std::string_view prefix, std::string_view after, uint32_t limit,
                                              uint64_t deadline_ns) {
  std::vector<KeyInfo> keys;
  if (limit == 0) return keys;
  // Twice the limit before the excess is dropped: sorting then costs little per key met.
  const size_t most = std::max<size_t>(2 * static_cast<size_t>(limit), kBatch);
  for (uint32_t first = 1;; first += kBatch) {
    Result<Impl::Section> section = impl_->Enter(deadline_ns);
    if (!section.ok()) return section.status();
    const uint32_t high = impl_->head().keys.high;
    if (first > high) break;
    for (uint32_t number = first; number <= high && number - first < kBatch; ++number) {
      const KeyEntry& entry = impl_->records.key(number);
      const uint64_t word = entry.value.load(std::memory_order_acquire);
      if (word == 0) continue;
      const std::string_view name = View(entry.name);
      if (!name.starts_with(prefix) || (!after.empty() && name <= after)) continue;
      if (IsReserved(name) && !IsReserved(prefix)) continue;
      const ValueRef ref = ValueRef::Unpack(word);
      const Impl::Found found{number, ref, &impl_->records.block(ref.block)};
      keys.push_back(impl_->Info(found, name));
    }
    section->Leave();
    if (keys.size() >= most) Trim(&keys, limit);
  }
  Trim(&keys, limit);
  return keys;
}

}  // namespace praas::state
