#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

namespace praas::state {

/// Keyed 64-bit hash of a name: 8 bytes per step, each folded by a 64 × 64 → 128 bit multiplication (the step of
/// wyhash). The key is random per segment, so that names cannot be chosen to fall into one bucket.
[[nodiscard]] inline uint64_t HashName(std::string_view name, uint64_t seed) noexcept {
  const auto mix = [](uint64_t a, uint64_t b) noexcept {
    __extension__ using Wide = unsigned __int128;
    const Wide product = static_cast<Wide>(a) * b;
    return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
  };
  constexpr uint64_t kA = 0xa076'1d64'78bd'642f;
  constexpr uint64_t kB = 0xe703'7ed1'a0b4'28db;
  uint64_t hash = seed ^ mix(name.size() ^ kA, seed ^ kB);
  const char* at = name.data();
  size_t left = name.size();
  while (left > 0) {
    uint64_t word = 0;
    const size_t step = left < sizeof word ? left : sizeof word;
    std::memcpy(&word, at, step);
    hash = mix(hash ^ word ^ kA, hash ^ kB);
    at += step;
    left -= step;
  }
  return mix(hash ^ kB, kA);
}

}  // namespace praas::state
