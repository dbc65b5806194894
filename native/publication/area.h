#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.h"
#include "base/unique_fd.h"
#include "publication/layout.h"
#include "shm/mapping.h"

namespace praas::publication {

/// The mapped publication area of a process. Move-only. Whoever writes to a block has made sure that its memory was
/// committed; readers look only where the host has told them that there is a block.
class Area {
 public:
  /// Host: a memfd of `bytes`, whole pages. Sparse: memory comes with Commit.
  [[nodiscard]] static Result<Area> Create(uint64_t bytes);
  /// Worker: the host's memfd. kSegmentInvalid when it is not sealed.
  [[nodiscard]] static Result<Area> Map(UniqueFd fd);
  /// Client: a descriptor from ReadOnlyFd, which is not kept.
  [[nodiscard]] static Result<Area> MapReadOnly(UniqueFd fd);

  [[nodiscard]] int fd() const noexcept { return fd_.get(); }  // −1 when mapped for reading only
  [[nodiscard]] uint64_t bytes() const noexcept { return mapping_.size(); }
  [[nodiscard]] std::span<std::byte> memory() const noexcept { return mapping_.bytes(); }
  /// Precondition: InArea.
  [[nodiscard]] std::span<std::byte> BlockAt(uint64_t offset, uint64_t capacity) const noexcept {
    return mapping_.bytes().subspan(offset, kHeadBytes + capacity);
  }

  /// Backs [0, end) with memory, or says why not (kStateMemory): a full machine is an error of who publishes and never
  /// a SIGBUS. Idempotent. Not under a mutex.
  [[nodiscard]] Status Commit(uint64_t end) const;
  /// The same object for somebody who may only read: mappings of this descriptor cannot be made writable.
  [[nodiscard]] Result<UniqueFd> ReadOnlyFd() const;

 private:
  Area(UniqueFd fd, shm::Mapping mapping) noexcept : fd_(std::move(fd)), mapping_(std::move(mapping)) {}
  [[nodiscard]] static Result<Area> MapWith(UniqueFd fd, shm::Access access);

  UniqueFd fd_;
  shm::Mapping mapping_;
};

}  // namespace praas::publication
