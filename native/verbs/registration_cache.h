#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <utility>

#include "verbs/memory_budget.h"
#include "verbs/queue.h"

#if PRAAS_VERBS_HEADERS

namespace praas::verbs {

/// Registrations of parts of one area of memory, which registering takes longer than most transfers to or from it: kept
/// for the next time while the budget lasts, those not used for longest given up first. The area stays mapped while
/// this lives, so that a registration never is of other memory than its address says.
class RegistrationCache {
 public:
  RegistrationCache(const ProtectionDomain& domain, std::span<std::byte> area, MemoryRegion::Access access,
                    MemoryBudget& budget = MemoryBudget::OfThisProcess()) noexcept;
  ~RegistrationCache();
  RegistrationCache(const RegistrationCache&) = delete;
  RegistrationCache& operator=(const RegistrationCache&) = delete;

  /// Keeps a registration while it lives. Not longer than the cache.
  class Lease {
   public:
    Lease() = default;
    Lease(Lease&& other) noexcept : cache_(std::exchange(other.cache_, nullptr)), entry_(other.entry_) {}
    Lease& operator=(Lease&& other) noexcept {
      std::swap(cache_, other.cache_);
      std::swap(entry_, other.entry_);
      return *this;
    }
    ~Lease();
    [[nodiscard]] explicit operator bool() const noexcept { return cache_ != nullptr; }
    [[nodiscard]] uint32_t local_key() const noexcept;
    /// `memory`, of what was asked for, as a peer names it.
    [[nodiscard]] RemoteMemory remote(const std::byte* memory) const noexcept;

   private:
    friend class RegistrationCache;
    struct Entry;
    Lease(RegistrationCache& cache, Entry& entry) noexcept : cache_(&cache), entry_(&entry) {}
    RegistrationCache* cache_ = nullptr;
    Entry* entry_ = nullptr;
  };

  /// `memory` lies in the area. An empty lease: there is no budget for it, or the device refuses.
  [[nodiscard]] Lease Acquire(std::span<const std::byte> memory);
  /// Gives up what is not in use. false: some is. While there is a registration, memory it covers must not be given
  /// back to the system: the device would go on with the pages it had.
  bool Trim();
  [[nodiscard]] uint64_t registered_bytes() const noexcept { return registered_bytes_; }

 private:
  using Entry = Lease::Entry;
  using Entries = std::multimap<uint64_t, std::unique_ptr<Entry>>;  // by where they begin in the area
  [[nodiscard]] Entry* Find(uint64_t begin, uint64_t end) noexcept;
  [[nodiscard]] bool EvictOne();
  void Drop(Entries::iterator entry);

  const ProtectionDomain& domain_;
  const std::span<std::byte> area_;
  const MemoryRegion::Access access_;
  MemoryBudget& budget_;
  Entries entries_;
  uint64_t longest_ = 0;  // bytes of the longest entry ever
  uint64_t uses_ = 0;
  uint64_t registered_bytes_ = 0;
};

}  // namespace praas::verbs

#endif
