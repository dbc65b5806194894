#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dispatch/call_entry.h"
#include "segment/arena.h"
#include "segment/segment.h"

namespace praas::window {

/// The pool window of a process: the memory that payloads of TCP connections and nested calls lie in. A sealed memfd made by
/// the host and mapped by host and workers; it does not outlive them.
///
///   [ slot per call entry: input 4 KiB, output 4 KiB | input arena | output arena ]
///
/// Inputs and outputs have an arena each, so that queued inputs can never keep the results of running calls from being written.
class Pool {
 public:
  /// Host: creates the memfd and formats both arenas. Sparse: memory is committed as payloads need it.
  [[nodiscard]] static Result<std::unique_ptr<Pool>> Create(const segment::Segment& segment);
  /// Worker: maps the host's memfd.
  [[nodiscard]] static Result<std::unique_ptr<Pool>> Map(UniqueFd fd, const segment::Segment& segment);
  ~Pool();

  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] std::byte* base() const noexcept;
  [[nodiscard]] uint64_t bytes() const noexcept;
  [[nodiscard]] std::span<std::byte> slot_input(uint32_t call) const noexcept;   // commits nothing: memfd pages appear on touch
  [[nodiscard]] std::span<std::byte> slot_output(uint32_t call) const noexcept;
  [[nodiscard]] segment::Arena& inputs() noexcept;
  [[nodiscard]] segment::Arena& outputs() noexcept;
  /// The bytes a reference names (kSlot, kPoolInput, kPoolOutput), bounds-checked; kSegmentInvalid when outside.
  [[nodiscard]] Result<std::span<std::byte>> Resolve(const dispatch::PayloadRef& ref) const;
  [[nodiscard]] dispatch::PayloadRef InputSlot(uint32_t call, uint64_t bytes) const noexcept;
  [[nodiscard]] dispatch::PayloadRef OutputSlot(uint32_t call, uint64_t bytes) const noexcept;
  /// Host, when idle: gives memory back.
  void Trim();
};

}  // namespace praas::window
