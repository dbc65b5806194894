#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace praas {

/// base64url without padding (RFC 4648, section 5): how keys and tokens are written as text.
[[nodiscard]] std::string ToBase64Url(std::span<const std::byte> bytes);

/// nullopt for any other character, a length that no bytes have, or bits left over that are not 0: each sequence of
/// bytes has one text.
[[nodiscard]] std::optional<std::vector<std::byte>> FromBase64Url(std::string_view text);

}  // namespace praas
