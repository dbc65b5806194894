#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

/// Copies of memory that others change meanwhile, word by word, so that they are races of values and not of the
/// language. What was copied is believed only after a look at the sequence (layout.h).
namespace praas::publication {

inline constexpr uint64_t kWordBytes = sizeof(uint64_t);

/// From shared memory, `from` on a word boundary. Reads whole words: up to seven bytes behind the last.
inline void CopyFromShared(std::byte* to, const std::byte* from, uint64_t bytes) noexcept {
  const auto* words = reinterpret_cast<const uint64_t*>(from);
  uint64_t at = 0;
  for (; at + kWordBytes <= bytes; at += kWordBytes) {
    const uint64_t word = __atomic_load_n(words++, __ATOMIC_RELAXED);
    std::memcpy(to + at, &word, sizeof word);
  }
  if (at == bytes) return;
  const uint64_t word = __atomic_load_n(words, __ATOMIC_RELAXED);
  std::memcpy(to + at, &word, bytes - at);
}

/// To shared memory, `to` on a word boundary. Writes whole words: zeros behind the last byte.
inline void CopyToShared(std::byte* to, const std::byte* from, uint64_t bytes) noexcept {
  auto* words = reinterpret_cast<uint64_t*>(to);
  uint64_t at = 0;
  for (; at + kWordBytes <= bytes; at += kWordBytes) {
    uint64_t word = 0;
    std::memcpy(&word, from + at, sizeof word);
    __atomic_store_n(words++, word, __ATOMIC_RELAXED);
  }
  if (at == bytes) return;
  uint64_t word = 0;
  std::memcpy(&word, from + at, bytes - at);
  __atomic_store_n(words, word, __ATOMIC_RELAXED);
}

}  // namespace praas::publication
