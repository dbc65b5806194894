#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <utility>

namespace praas::window {

/// The client's allocator over the payload area of its window: best fit, lowest address first, neighbours merged at
/// once; every operation in O(log blocks). All bookkeeping is in the client's private memory, because whatever lies in
/// the window could be overwritten by a function that misbehaves.
///
/// A block in use by a call is *pinned*; releasing it then takes effect when the last pin goes, so that memory the
/// server may still write to is never given to anybody else.
class PayloadAllocator {
 public:
  static constexpr uint64_t kGranule = 64;
  static constexpr uint64_t kPage = 4096;

  /// Manages [begin, end); both are multiples of kGranule.
  PayloadAllocator(uint64_t begin, uint64_t end);

  /// Offset of at least `bytes` bytes (0 counts as 1); nullopt when no free run is long enough. Blocks of a page and
  /// more begin at a page: a worker that must not see anything else can then map them by themselves.
  [[nodiscard]] std::optional<uint64_t> Allocate(uint64_t bytes);
  /// Whether Allocate would succeed.
  [[nodiscard]] bool Fits(uint64_t bytes) const;
  /// false: no block begins at `offset`, or it was released before.
  bool Release(uint64_t offset);

  /// The block that contains the whole range and is not released; nullopt when there is none.
  [[nodiscard]] std::optional<uint64_t> Find(uint64_t offset, uint64_t bytes) const;
  /// Precondition: `block` came from Allocate or Find and has not been released since.
  void Pin(uint64_t block);
  /// Precondition: pinned.
  void Unpin(uint64_t block);

  [[nodiscard]] uint64_t used_bytes() const noexcept { return used_bytes_; }
  [[nodiscard]] uint64_t capacity() const noexcept { return end_ - begin_; }
  [[nodiscard]] size_t blocks() const noexcept { return used_.size(); }
  void ForEachFree(const std::function<void(uint64_t offset, uint64_t bytes)>& visit) const;

 private:
  struct Used {
    uint64_t bytes;
    uint32_t pins = 0;
    bool released = false;
  };
  using UsedBlocks = std::map<uint64_t, Used>;
  using FreeRuns = std::set<std::pair<uint64_t, uint64_t>>;
  /// The shortest run that holds `bytes` bytes from where blocks of that size may begin.
  [[nodiscard]] FreeRuns::iterator BestFit(uint64_t bytes) const;
  void Free(UsedBlocks::iterator block);

  uint64_t begin_;
  uint64_t end_;
  uint64_t used_bytes_ = 0;
  UsedBlocks used_;                    // by offset
  std::map<uint64_t, uint64_t> free_;  // offset → bytes of every free run
  FreeRuns by_size_;                   // the same as {bytes, offset}
};

}  // namespace praas::window
