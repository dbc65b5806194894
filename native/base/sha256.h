#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

namespace praas {

/// SHA-256 (FIPS 180-4) of bytes that come in pieces. Tokens are its only use: once per connection, a few hundred
/// bytes.
class Sha256 {
 public:
  static constexpr size_t kDigestBytes = 32;
  static constexpr size_t kBlockBytes = 64;
  using Digest = std::array<std::byte, kDigestBytes>;

  void Update(std::span<const std::byte> bytes) noexcept;
  /// Of all bytes so far. Nothing can be added afterwards.
  [[nodiscard]] Digest Finish() noexcept;

 private:
  void Compress() noexcept;

  std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                    0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, kBlockBytes> block_;
  size_t filled_ = 0;  // of block_
  uint64_t bytes_ = 0;
};

/// HMAC-SHA256 (RFC 2104) of `message`. Keys of any length.
[[nodiscard]] Sha256::Digest HmacSha256(std::span<const std::byte> key, std::span<const std::byte> message) noexcept;

}  // namespace praas
