#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace praas::protocol {

/// CRC-32C (Castagnoli, reflected; RFC 3720 appendix B.4). Continue with `seed` = the checksum of the bytes before.
/// Uses the processor's instruction where it has one.
[[nodiscard]] uint32_t Crc32c(std::span<const std::byte> bytes, uint32_t seed = 0) noexcept;

/// The same without the instruction, for processors that lack it; exposed so that tests can compare both.
[[nodiscard]] uint32_t Crc32cPortable(std::span<const std::byte> bytes, uint32_t seed = 0) noexcept;

}  // namespace praas::protocol
