#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "base/result.h"
#include "base/unique_fd.h"
#include "segment/layout.h"
#include "shm/mapping.h"

namespace praas::segment {

class Segment;

/// Backs records [0, count) of a region of the segment open as `fd`; see Segment::Commit.
[[nodiscard]] Status CommitRegion(int fd, Region& region, uint32_t count);

struct CreateOptions {
  std::string name;                          // POSIX name, "/praas-…"
  std::string process_id;                    // 1 … 255 bytes of UTF-8
  uint64_t memory_bytes = 1ull << 30;        // limit of state data; sparse, committed as it is used
  uint64_t pool_bytes = 1ull << 30;          // limit of the pool window (payloads), half inputs, half outputs
  uint32_t calls = dispatch::kDefaultCalls;  // backlog
  /// Formats what lies inside (state, …) of a new segment. Runs before the segment becomes valid: a creator that dies
  /// in it leaves an object that the next one starts anew.
  std::function<Status(const Segment&)> format;
  uint64_t lock_wait_ns = 0;  // how long to wait for the lock of another host
  bool must_exist = false;    // an earlier host has served the process: a new one would be without its state
};

/// The mapped segment of one process. Move-only; unmaps when destroyed; the object itself stays until `Unlink`.
///
/// The host calls CreateOrAttach and holds the OFD write lock on the object for as long as the Segment lives; workers
/// and inspectors get the fd from the host (or open it by name) and call Map, which takes no lock. The whole object is
/// one mapping of sparse memory: `base() + offset` for any offset within the object.
class Segment {
 public:
  /// Creates the object, or attaches to the one a dead host left; the sizes of an existing one win. Every header field
  /// of an existing object is copied and checked before it is believed. kProcessBusy when a live host holds the lock;
  /// kSegmentInvalid when it is no segment, of another layout, damaged, or not there and must be. `attached()` tells
  /// which of the two happened; an attached segment still has to be repaired (host/repair.h) before it serves calls.
  [[nodiscard]] static Result<Segment> CreateOrAttach(const CreateOptions& options);

  /// Maps a segment by fd, for workers (`writable`) and for `praas inspect` (read-only).
  [[nodiscard]] static Result<Segment> Map(UniqueFd fd, bool writable);
  [[nodiscard]] static Result<Segment> Open(const std::string& name, bool writable);
  [[nodiscard]] static Status Unlink(const std::string& name);

  Segment(Segment&&) noexcept = default;
  Segment& operator=(Segment&&) noexcept = default;
  ~Segment() = default;

  [[nodiscard]] Header& header() const noexcept { return *reinterpret_cast<Header*>(base()); }
  [[nodiscard]] bool attached() const noexcept { return attached_; }  // true: an earlier host's segment
  [[nodiscard]] bool writable() const noexcept { return writable_; }
  /// Of the object, without the lock: may be passed to other processes. (The lock belongs to an open file description
  /// and would live on in whoever got that.)
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] std::byte* base() const noexcept { return mapping_.data(); }        // meta part
  [[nodiscard]] std::byte* data() const noexcept { return base() + data_offset_; }  // data part
  [[nodiscard]] uint64_t data_bytes() const noexcept { return mapping_.size() - data_offset_; }

  /// Record `index` of a region. Precondition: index < committed.
  template <typename T>
  [[nodiscard]] T& At(const Region& region, uint32_t index) const noexcept {
    return *reinterpret_cast<T*>(base() + region.offset + static_cast<uint64_t>(index) * region.stride);
  }
  [[nodiscard]] dispatch::Participant& participant(uint32_t index) const noexcept { return participants_[index]; }
  [[nodiscard]] dispatch::CallEntry& call(uint32_t index) const noexcept { return calls_[index]; }
  [[nodiscard]] WindowSlot& window(uint32_t index) const noexcept { return windows_[index]; }
  [[nodiscard]] Function& function(uint32_t index) const noexcept { return functions_[index]; }

  /// Makes records [0, count) of a region usable (zeroed when new). Idempotent, callable by any participant at any time
  /// without a lock; must not be called while holding an internal mutex. kStateMemory with ENOSPC's meaning when
  /// /dev/shm is full, and when `count` exceeds the region's capacity.
  [[nodiscard]] Status Commit(Region& region, uint32_t count) const { return CommitRegion(fd(), region, count); }
  /// The same for bytes [0, end) of the data part; `committed` is the arena's watermark.
  [[nodiscard]] Status CommitData(uint64_t end) const;

 private:
  Segment(shm::Mapping mapping, UniqueFd fd, bool writable) noexcept;

  [[nodiscard]] static Result<Segment> Create(UniqueFd fd, const CreateOptions& options);

  shm::Mapping mapping_;
  UniqueFd fd_;
  UniqueFd lock_;  // host only
  uint64_t data_offset_;
  dispatch::Participant* participants_;
  dispatch::CallEntry* calls_;
  WindowSlot* windows_;
  Function* functions_;
  bool writable_;
  bool attached_ = false;
};

}  // namespace praas::segment
