#include "verbs/registration_cache.h"

#if PRAAS_VERBS_HEADERS

#include <algorithm>
#include <cassert>

namespace praas::verbs {
namespace {

/// Neighbours share a registration: calls of similar sizes then find one.
constexpr uint64_t kStep = 64u << 10;
/// Looking for one takes as long as there are entries in its reach.
constexpr size_t kMostEntries = 256;

}  // namespace

struct RegistrationCache::Lease::Entry {
  MemoryRegion region;
  uint64_t begin, end;  // in the area
  uint32_t users = 0;
  uint64_t used = 0;  // when, in uses
};

RegistrationCache::Lease::~Lease() {
  if (cache_ == nullptr) return;
  assert(entry_->users > 0);
  --entry_->users;
}

uint32_t RegistrationCache::Lease::local_key() const noexcept { return entry_->region.local_key(); }

RemoteMemory RegistrationCache::Lease::remote(const std::byte* memory) const noexcept {
  return {reinterpret_cast<uintptr_t>(memory), entry_->region.remote().key};
}

RegistrationCache::RegistrationCache(const ProtectionDomain& domain, std::span<std::byte> area,
                                     MemoryRegion::Access access, MemoryBudget& budget) noexcept
    : domain_(domain), area_(area), access_(access), budget_(budget) {}

RegistrationCache::~RegistrationCache() {
  for (const auto& [begin, entry] : entries_) budget_.Give(entry->end - entry->begin);
}

RegistrationCache::Lease RegistrationCache::Acquire(std::span<const std::byte> memory) {
  const auto offset = static_cast<uint64_t>(memory.data() - area_.data());
  assert(offset <= area_.size() && memory.size() <= area_.size() - offset);
  Entry* entry = Find(offset, offset + memory.size());
  if (entry == nullptr) {
    const uint64_t begin = offset / kStep * kStep;
    const uint64_t end = std::min<uint64_t>((offset + memory.size() + kStep - 1) / kStep * kStep, area_.size());
    if (entries_.size() >= kMostEntries) static_cast<void>(EvictOne());
    while (!budget_.Take(end - begin)) {
      if (!EvictOne()) return {};
    }
    Result<MemoryRegion> region = MemoryRegion::Register(domain_, area_.subspan(begin, end - begin), access_);
    while (!region.ok() && region.status().code() == Code::kBackpressure && EvictOne()) {
      region = MemoryRegion::Register(domain_, area_.subspan(begin, end - begin), access_);
    }
    if (!region.ok()) {
      budget_.Give(end - begin);
      return {};
    }
    registered_bytes_ += end - begin;
    longest_ = std::max(longest_, end - begin);
    entry = entries_.emplace(begin, new Entry{*std::move(region), begin, end})->second.get();
  }
  ++entry->users;
  entry->used = ++uses_;
  return {*this, *entry};
}

RegistrationCache::Entry* RegistrationCache::Find(uint64_t begin, uint64_t end) noexcept {
  // None that covers it begins further in front than the longest reaches.
  for (auto at = entries_.upper_bound(begin); at != entries_.begin();) {
    --at;
    if (at->second->end >= end) return at->second.get();
    if (at->first + longest_ < end) break;
  }
  return nullptr;
}

bool RegistrationCache::EvictOne() {
  auto oldest = entries_.end();
  for (auto at = entries_.begin(); at != entries_.end(); ++at) {
    if (at->second->users > 0) continue;
    if (oldest == entries_.end() || at->second->used < oldest->second->used) oldest = at;
  }
  if (oldest == entries_.end()) return false;
  Drop(oldest);
  return true;
}

void RegistrationCache::Drop(Entries::iterator entry) {
  const uint64_t bytes = entry->second->end - entry->second->begin;
  entries_.erase(entry);
  registered_bytes_ -= bytes;
  budget_.Give(bytes);
}

bool RegistrationCache::Trim() {
  while (EvictOne()) {
  }
  return entries_.empty();
}

}  // namespace praas::verbs

#endif
