#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "state/records.h"

namespace praas::state {

/// Finds keys by name: linear hashing over the key records. Every insertion splits at most two buckets, so no operation
/// ever moves all keys (but for Rebuild after a death). All methods under the mutex unless they say otherwise.
class KeyIndex {
 public:
  explicit KeyIndex(const Records& records) noexcept : records_(records) {}

  /// Without the mutex: the seed never changes.
  [[nodiscard]] uint64_t Hash(std::string_view name) const noexcept;

  [[nodiscard]] uint32_t Find(std::string_view name, uint64_t hash) const noexcept;  // kNone: no such key
  [[nodiscard]] bool HasRoom() const noexcept;
  [[nodiscard]] uint32_t Take() noexcept;  // an unused record; HasRoom() said there is one
  void Give(uint32_t number) noexcept;     // back, never linked
  void Link(uint32_t number) noexcept;     // makes it findable; its name and hash are set
  void Unlink(uint32_t number) noexcept;   // and gives the record back

  /// More buckets are wanted than are committed. Call GrowBuckets outside the mutex then; until somebody did, chains
  /// grow.
  [[nodiscard]] bool wants_buckets() const noexcept;
  [[nodiscard]] Status Grow() const;  // outside the mutex
  void GrowBuckets() const;           // outside the mutex

  /// Makes buckets, chains, free list and counts anew from the published values. Records that cannot be right (only in
  /// a damaged segment) are dropped.
  void Rebuild() noexcept;
  void Check(std::vector<std::string>* violations) const;

 private:
  [[nodiscard]] uint32_t BucketOf(uint64_t hash) const noexcept;
  void Split() noexcept;
  [[nodiscard]] bool Sound(uint32_t number) const noexcept;

  Records records_;
};

}  // namespace praas::state
