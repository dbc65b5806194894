#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "segment/layout.h"

namespace praas::transport {

/// Learns how large the results of each function are, so that room for the next one can be offered before it is known.
/// The largest of the last 64 … 127 results: an average would be too small for every other call. Functions that say how
/// much they need are believed.
class ResultSizes {
 public:
  /// More than this is never offered unasked; the server asks for it when it is needed.
  static constexpr uint64_t kMaxHintBytes = 64u << 20;

  [[nodiscard]] uint64_t Hint(uint32_t function) const noexcept {
    if (function >= sizes_.size()) return 0;
    if (sizes_[function].expected != 0) return sizes_[function].expected;
    return std::min(std::max(sizes_[function].current, sizes_[function].previous), kMaxHintBytes);
  }

  /// Every call of `function` gets this much room.
  void Expect(uint32_t function, uint64_t bytes) {
    if (Known(function)) sizes_[function].expected = bytes;
  }

  void Note(uint32_t function, uint64_t bytes) {
    if (!Known(function)) return;
    Sizes& sizes = sizes_[function];
    if (++sizes.count == kPeriod) {
      sizes.previous = sizes.current;
      sizes.current = 0;
      sizes.count = 0;
    }
    sizes.current = std::max(sizes.current, bytes);
  }

 private:
  static constexpr uint32_t kPeriod = 64;
  [[nodiscard]] bool Known(uint32_t function) {
    if (function >= segment::kMaxFunctions) return false;
    if (function >= sizes_.size()) sizes_.resize(function + 1);
    return true;
  }
  struct Sizes {
    uint64_t expected = 0;  // 0: not said
    uint64_t current = 0;   // largest of this period
    uint64_t previous = 0;  // largest of the one before
    uint32_t count = 0;
  };
  std::vector<Sizes> sizes_;
};

}  // namespace praas::transport
