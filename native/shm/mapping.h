#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>

#include "base/result.h"

namespace praas::shm {

enum class Access { kReadOnly, kReadWrite };

/// Owns one shared mapping of a file or memfd. Move-only; unmapped when destroyed. The descriptor may be closed before.
class Mapping {
 public:
  Mapping() noexcept = default;
  Mapping(Mapping&& other) noexcept : bytes_(std::exchange(other.bytes_, {})) {}
  Mapping& operator=(Mapping&& other) noexcept {
    if (this != &other) {
      Reset();
      bytes_ = std::exchange(other.bytes_, {});
    }
    return *this;
  }
  ~Mapping() { Reset(); }

  /// Maps [offset, offset + bytes); `offset` is a multiple of the page size, `bytes` ≥ 1. Reserves no memory.
  [[nodiscard]] static Result<Mapping> Map(int fd, uint64_t offset, uint64_t bytes, Access access);

  void Reset() noexcept;

  [[nodiscard]] std::byte* data() const noexcept { return bytes_.data(); }
  [[nodiscard]] uint64_t size() const noexcept { return bytes_.size(); }
  [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
  [[nodiscard]] explicit operator bool() const noexcept { return bytes_.data() != nullptr; }

 private:
  explicit Mapping(std::span<std::byte> bytes) noexcept : bytes_(bytes) {}

  std::span<std::byte> bytes_;
};

}  // namespace praas::shm
