#pragma once

#include <cstddef>
#include <memory>
#include <span>

#include "base/result.h"
#include "base/unique_fd.h"
#include "dispatch/call_entry.h"
#include "segment/arena.h"
#include "segment/segment.h"
#include "window/mapping.h"

namespace praas::window {

/// The pool window of a process: the memory that payloads of TCP connections and nested calls lie in. A sealed memfd
/// made by the host and mapped by host and workers; it does not outlive them. The segment must outlive the Pool object.
///
///   [ slot per call entry: input 4 KiB, output 4 KiB | input arena | output arena ]
///
/// Inputs and outputs have an arena each, so that queued inputs can never keep the results of running calls from being
/// written.
class Pool {
 public:
  static constexpr uint64_t kMinArenaBytes = 64u << 10;

  /// Host: creates the memfd, of header().pool_bytes bytes, and formats both arenas. Sparse: memory is committed as
  /// payloads need it. kArgumentInvalid when the slots of all calls leave less than kMinArenaBytes for each arena.
  [[nodiscard]] static Result<std::unique_ptr<Pool>> Create(const segment::Segment& segment);
  /// Worker: maps the host's memfd. `self` is its participant index.
  [[nodiscard]] static Result<std::unique_ptr<Pool>> Map(UniqueFd fd, const segment::Segment& segment,
                                                         uint16_t self = segment::kUnknownParticipant);
  ~Pool();

  /// From here on this process reads payloads, but writes to them through Write only.
  [[nodiscard]] Status ProtectPayloads();

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] std::byte* base() const noexcept { return mapping_.base(); }
  [[nodiscard]] uint64_t bytes() const noexcept { return mapping_.bytes(); }
  /// Precondition: an entry of the call table. Commits nothing: memfd pages appear on touch.
  [[nodiscard]] std::span<std::byte> slot_input(uint32_t call) const noexcept;
  [[nodiscard]] std::span<std::byte> slot_output(uint32_t call) const noexcept;
  [[nodiscard]] segment::Arena& inputs() noexcept { return inputs_; }
  [[nodiscard]] segment::Arena& outputs() noexcept { return outputs_; }
  /// The bytes a reference names (kSlot, kPoolInput, kPoolOutput), bounds-checked; kSegmentInvalid when outside.
  [[nodiscard]] Result<std::span<std::byte>> Resolve(const dispatch::PayloadRef& ref) const;
  /// Copies bytes to where `ref` names them. kSegmentInvalid when that lies outside, or cannot hold them.
  [[nodiscard]] Status Write(const dispatch::PayloadRef& ref, std::span<const std::byte> bytes);
  [[nodiscard]] dispatch::PayloadRef InputSlot(uint32_t call, uint64_t bytes) const noexcept;
  [[nodiscard]] dispatch::PayloadRef OutputSlot(uint32_t call, uint64_t bytes) const noexcept;
  /// Host, when idle: gives the memory of free blocks and of free entries' slots back. Safe at any time.
  void Trim();

 private:
  Pool(const segment::Segment& segment, UniqueFd fd, Mapping mapping, uint64_t inputs_offset, uint64_t arena_bytes,
       uint16_t self);
  void TrimSlots();

  const segment::Segment& segment_;
  UniqueFd fd_;
  Mapping mapping_;
  uint64_t inputs_offset_;
  uint64_t outputs_offset_;
  segment::Arena inputs_;
  segment::Arena outputs_;
  bool protected_ = false;
};

}  // namespace praas::window
