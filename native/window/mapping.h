#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/result.h"

namespace praas::window {

/// A writable mapping of a whole window with an inaccessible page on either side, so that arithmetic gone wrong faults
/// at once instead of reaching a neighbour. Owns the address range. Not inherited by forked children.
class Mapping {
 public:
  Mapping() noexcept = default;
  /// Maps the whole memfd. kSegmentInvalid when it is not sealed (shm::CheckMemfd): its other holder could truncate it,
  /// and every access here would be a SIGBUS.
  [[nodiscard]] static Result<Mapping> MapSealed(int fd);

  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Reset();
      base_ = std::exchange(other.base_, nullptr);
      bytes_ = std::exchange(other.bytes_, 0);
    }
    return *this;
  }
  ~Mapping() { Reset(); }

  void Reset() noexcept;
  [[nodiscard]] std::byte* base() const noexcept { return base_; }
  [[nodiscard]] uint64_t bytes() const noexcept { return bytes_; }

 private:
  std::byte* base_ = nullptr;
  uint64_t bytes_ = 0;
};

}  // namespace praas::window
