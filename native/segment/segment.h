#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "segment/layout.h"

namespace praas::segment {

struct CreateOptions {
  std::string name;        // POSIX name, "/praas-…"
  std::string process_id;  // 1 … 255 bytes of UTF-8
  uint64_t memory_bytes = 1ull << 30;     // limit of state data; sparse, committed as it is used
  uint64_t pool_bytes = 1ull << 30;       // limit of the pool window (payloads), half inputs, half outputs
  uint32_t calls = dispatch::kDefaultCalls;  // backlog
};

/// The mapped segment of one process. Move-only; unmaps when destroyed; the object itself stays until `Unlink`.
///
/// The host calls CreateOrAttach and holds the OFD write lock on the object for as long as the Segment lives; workers and
/// inspectors get the fd from the host (or open it by name) and call Map, which takes no lock.
class Segment {
 public:
  /// Creates the object, or attaches to the one a dead host left. Every header field of an existing object is copied and
  /// checked before it is believed. kProcessBusy when a live host holds the lock; kSegmentInvalid when it is no segment,
  /// of another layout or damaged. `attached()` tells which of the two happened; an attached segment still has to be
  /// repaired (host/repair.h) before it serves calls.
  [[nodiscard]] static Result<Segment> CreateOrAttach(const CreateOptions& options);

  /// Maps a segment by fd, for workers (`writable`) and for `praas inspect` (read-only).
  [[nodiscard]] static Result<Segment> Map(UniqueFd fd, bool writable);
  [[nodiscard]] static Result<Segment> Open(const std::string& name, bool writable);
  [[nodiscard]] static Status Unlink(const std::string& name);

  Segment(Segment&&) noexcept;
  Segment& operator=(Segment&&) noexcept;
  ~Segment();

  [[nodiscard]] Header& header() const noexcept;
  [[nodiscard]] bool attached() const noexcept;  // true: an earlier host's segment
  [[nodiscard]] int fd() const noexcept;
  [[nodiscard]] std::byte* base() const noexcept;  // meta part
  [[nodiscard]] std::byte* data() const noexcept;  // data part
  [[nodiscard]] uint64_t data_bytes() const noexcept;

  /// Record `index` of a region. Precondition: index < committed.
  template <typename T>
  [[nodiscard]] T& At(const Region& region, uint32_t index) const noexcept {
    return *reinterpret_cast<T*>(base() + region.offset + static_cast<uint64_t>(index) * region.stride);
  }
  [[nodiscard]] dispatch::Participant& participant(uint32_t index) const noexcept;
  [[nodiscard]] dispatch::CallEntry& call(uint32_t index) const noexcept;
  [[nodiscard]] WindowSlot& window(uint32_t index) const noexcept;
  [[nodiscard]] Function& function(uint32_t index) const noexcept;

  /// Makes records [0, count) of a region usable. Idempotent, callable by any participant at any time without a lock; must
  /// not be called while holding an internal mutex. kStateMemory with ENOSPC's meaning when /dev/shm is full.
  [[nodiscard]] Status Commit(Region& region, uint32_t count) const;
  /// The same for bytes [0, end) of the data part; `committed` is the arena's watermark.
  [[nodiscard]] Status CommitData(uint64_t end) const;

 private:
  struct Impl;
  explicit Segment(std::unique_ptr<Impl> impl) noexcept;
  std::unique_ptr<Impl> impl_;
};

}  // namespace praas::segment
