#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstring>

namespace praas::protocol {

/// Integers on the wire are little-endian and unaligned: always read and written through these.
template <std::unsigned_integral T>
[[nodiscard]] T LoadLittle(const std::byte* from) noexcept {
  if constexpr (std::endian::native == std::endian::little) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  } else {
    T value = 0;
    for (size_t i = sizeof(T); i-- > 0;) value = static_cast<T>(value << 8 | static_cast<T>(from[i]));
    return value;
  }
}

template <std::unsigned_integral T>
void StoreLittle(std::byte* to, T value) noexcept {
  if constexpr (std::endian::native == std::endian::little) {
    std::memcpy(to, &value, sizeof value);
  } else {
    for (size_t i = 0; i < sizeof(T); ++i) to[i] = static_cast<std::byte>(value >> (8 * i));
  }
}

}  // namespace praas::protocol
