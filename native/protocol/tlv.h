#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "protocol/little_endian.h"

/// Messages inside frames are sequences of fields {tag u16, length u32, bytes}. Tags a reader does not know are
/// skipped, so that fields can be added; known ones may come once and in any order.
namespace praas::protocol {

inline constexpr size_t kFieldHeaderBytes = sizeof(uint16_t) + sizeof(uint32_t);
inline constexpr uint16_t kMaxTag = 31;  // tags above are unknown to this version

class FieldWriter {
 public:
  void Bytes(uint16_t tag, std::span<const std::byte> bytes);
  void Text(uint16_t tag, std::string_view text);
  template <std::unsigned_integral T>
  void Integer(uint16_t tag, T value) {
    std::byte little[sizeof(T)];
    StoreLittle<T>(little, value);
    Bytes(tag, little);
  }
  /// Only the header of a last field; its bytes are sent from where they lie.
  void HeaderOnly(uint16_t tag, uint32_t bytes);
  [[nodiscard]] std::vector<std::byte> Take() noexcept { return std::move(bytes_); }

 private:
  std::vector<std::byte> bytes_;
};

/// Splits a message into fields. Every getter checks presence, size and content; the first failure is kept in
/// `status()` (kProtocolInvalid) and later getters return empty values, so that a decoder reads all fields and checks
/// once. Keeps views of `bytes`.
class FieldReader {
 public:
  /// `message` names the message in errors.
  FieldReader(std::span<const std::byte> bytes, std::string_view message);

  [[nodiscard]] bool Has(uint16_t tag) const noexcept { return fields_[tag].data() != nullptr; }

  template <std::unsigned_integral T>
  [[nodiscard]] T Integer(uint16_t tag, std::string_view name, T low, T high) {
    const std::span<const std::byte> bytes = Exactly(tag, name, sizeof(T));
    if (bytes.empty()) return low;
    const T value = LoadLittle<T>(bytes.data());
    if (value < low || value > high) Fail(name, "is out of range");
    return value;
  }
  template <std::unsigned_integral T>
  [[nodiscard]] T Integer(uint16_t tag, std::string_view name) {
    return Integer<T>(tag, name, T{0}, static_cast<T>(-1));
  }
  /// Anything of at most `max` bytes.
  [[nodiscard]] std::span<const std::byte> Bytes(uint16_t tag, std::string_view name, size_t max);
  /// UTF-8 of `min` … `max` bytes, without NUL.
  [[nodiscard]] std::string Text(uint16_t tag, std::string_view name, size_t min, size_t max);

  void Fail(std::string_view name, std::string_view why);
  [[nodiscard]] const Status& status() const noexcept { return status_; }

 private:
  [[nodiscard]] std::span<const std::byte> Exactly(uint16_t tag, std::string_view name, size_t bytes);

  std::string_view message_;
  std::span<const std::byte> fields_[kMaxTag + 1];
  Status status_;
};

}  // namespace praas::protocol
