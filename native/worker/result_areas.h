#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"

namespace praas::worker {

/// Memory for results of functions that cannot be told how much they may write.
///
/// An area is a run of whole pages of a window, mapped by itself: in front of it and behind it lies inaccessible
/// address space, at least kGap bytes and at least as much as the area has. What a function writes behind the end of
/// its result faults there instead of reaching the slot of another call. An area is mapped when it is first used and
/// stays mapped, so that calls which use the same ones make no system call; but only areas in use are accessible:
/// before a function runs, the ones of earlier calls are closed. Owner thread only.
class ResultAreas {
 public:
  /// Address space costs nothing, and a wider gap also stops pointers that jump.
  static constexpr uint64_t kGap = 16u << 20;
  static constexpr uint64_t kPage = 4096;
  /// Memory that only this process has, instead of a part of a window.
  static constexpr int kPrivate = -1;

  ResultAreas() = default;
  ~ResultAreas();
  ResultAreas(const ResultAreas&) = delete;
  ResultAreas& operator=(const ResultAreas&) = delete;

  [[nodiscard]] static constexpr uint64_t Pages(uint64_t bytes) noexcept { return (bytes + kPage - 1) / kPage * kPage; }

  /// The pages [offset, offset + bytes) of the window `fd`, accessible until Close. `window` names the window in
  /// Forget. Precondition: both are multiples of kPage, and nothing else lies in these pages. The result is aligned to
  /// the end: its last byte, rounded up to 16 bytes, is the last before the gap.
  [[nodiscard]] Result<std::span<std::byte>> Open(int fd, const void* window, uint64_t offset, uint64_t bytes);
  /// The function that used the area has ended. `area` may be any part of it.
  void Close(const std::byte* area) noexcept;
  /// Makes inaccessible what is not in use; Open does, too.
  void CloseUnused() noexcept;
  /// The window is unmapped: so are its areas.
  void Forget(const void* window) noexcept;

  /// Whether `address` lies in the inaccessible space around an area that is in use. Async-signal-safe.
  [[nodiscard]] bool InGap(const void* address) const noexcept;
  [[nodiscard]] size_t mapped() const noexcept { return areas_.size(); }

 private:
  struct Area {
    const void* window;
    uint64_t offset;
    std::byte* begin;  // of the accessible part
    uint64_t bytes;
    uint32_t users;
    bool accessible;
    uint64_t used_last;
    [[nodiscard]] uint64_t gap() const noexcept { return bytes > kGap ? bytes : kGap; }
  };
  /// More are hardly ever in use in turn; the one used longest ago goes.
  static constexpr size_t kMaxAreas = 64;

  [[nodiscard]] Result<Area*> Map(int fd, const void* window, uint64_t offset, uint64_t bytes);
  static void Unmap(const Area& area) noexcept;
  static void CloseIfUnused(Area& area) noexcept;

  std::vector<Area> areas_;
  uint64_t clock_ = 0;
};

}  // namespace praas::worker
