#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "window/payload_allocator.h"

namespace praas::window {

/// Memory for payloads in a mapped memfd, allocated by its one owner.
///
/// Memory is committed (fallocate) before it is handed out, so that a machine out of memory is an error of the call
/// that needed it and not a SIGBUS in the middle of a copy. Single-threaded.
class PayloadArea {
 public:
  /// Step of commitment. Larger wastes memory on clients with small payloads, smaller costs system calls.
  static constexpr uint64_t kCommitBytes = 64u << 10;

  /// [begin, end) of the memfd, which is mapped at `base` as a whole. Both outlive this.
  PayloadArea(int memfd, std::byte* base, uint64_t begin, uint64_t end);

  /// A committed block, 64-byte aligned. kPayloadTooLarge: never possible here; kBackpressure: not now; kStateMemory:
  /// the machine has no memory for it.
  [[nodiscard]] Result<uint64_t> Allocate(uint64_t bytes);
  [[nodiscard]] PayloadAllocator& allocator() noexcept { return allocator_; }
  /// Offset of memory that lies in the area as a whole; nullopt for any other memory.
  [[nodiscard]] std::optional<uint64_t> OffsetOf(std::span<const std::byte> memory) const noexcept;
  [[nodiscard]] std::byte* At(uint64_t offset) const noexcept { return base_ + offset; }
  /// Gives free memory beyond `keep_bytes` back to the system.
  void Trim(uint64_t keep_bytes);
  [[nodiscard]] uint64_t committed_bytes() const noexcept { return committed_chunks_ * kCommitBytes; }

  struct Counters {
    uint64_t commits = 0;  // fallocate calls
    uint64_t trims = 0;    // ranges given back
  };
  [[nodiscard]] const Counters& counters() const noexcept { return counters_; }

 private:
  [[nodiscard]] Status Commit(uint64_t offset, uint64_t bytes);

  const int memfd_;
  std::byte* const base_;
  const uint64_t begin_, end_;
  PayloadAllocator allocator_;
  std::vector<bool> committed_;  // of each kCommitBytes
  uint64_t committed_chunks_ = 0;
  Counters counters_;
};

}  // namespace praas::window
