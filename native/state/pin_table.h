#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "state/records.h"

namespace praas::state {

/// Which blocks this process, and which blocks any process, wants to keep.
///
/// The segment has one record per participant and block; how often this process pins a block is counted here, in its
/// own memory. A pin that nobody in the process uses any more becomes *idle*: it leaves the segment with the next
/// section that any thread enters, so that Unpin never has to wait.
///
/// "Section": the caller holds StateHead::mutex. The process-local part has a lock of its own, taken inside sections.
class PinTable {
 public:
  PinTable(const Records& records, uint16_t self) noexcept : records_(records), self_(self) {}

  /// Section. Number of this process's pin of `block`; kNone when the region has to be grown first.
  [[nodiscard]] uint32_t Pin(uint32_t block);
  /// Anywhere. One Pin less. true: the pin is idle now, DrainIdle has something to do.
  [[nodiscard]] bool Release(uint32_t pin);
  [[nodiscard]] bool has_idle() const noexcept { return idle_count_.load(std::memory_order_relaxed) != 0; }
  /// Section. Takes idle pins, at most kDrainAtOnce, out of the segment; `unpinned` gets each block without pins now.
  void DrainIdle(const std::function<void(uint32_t block)>& unpinned);

  /// Section. Whether pin record `pin` pins `block`, whoever's it is.
  [[nodiscard]] bool Pins(uint32_t pin, uint32_t block) const noexcept;

  /// Section. Releases the pins of `participant` among records [first, first + count); `unpinned` as above.
  void Reclaim(uint16_t participant, uint32_t first, uint32_t count,
               const std::function<void(uint32_t block)>& unpinned);
  [[nodiscard]] uint32_t high() const noexcept { return records_.head().pins.high; }

  [[nodiscard]] Status Grow() const { return records_.Grow(records_.header().pins, "pins"); }  // outside a section

  void Clear() noexcept;    // section: nobody pins anything (the participants of a dead host)
  void Rebuild() noexcept;  // section
  void Check(std::vector<std::string>* violations) const;

 private:
  static constexpr size_t kDrainAtOnce = 64;
  struct Local {
    uint32_t pin;
    uint32_t uses;
  };

  void Remove(uint32_t pin, uint32_t block, const std::function<void(uint32_t block)>& unpinned);

  Records records_;
  uint16_t self_;
  std::mutex local_mutex_;
  std::unordered_map<uint32_t, Local> by_block_;
  std::unordered_map<uint32_t, uint32_t> block_of_pin_;
  std::vector<uint32_t> idle_;  // blocks whose uses reached 0; may be in use again
  std::atomic<size_t> idle_count_{0};
};

}  // namespace praas::state
