#pragma once

#include <string>
#include <string_view>

namespace praas {

/// `text` as UTF-8, each byte that belongs to no well-formed sequence (RFC 3629) replaced by U+FFFD: what workers print
/// and what comes out of cut messages goes into JSON and to the agent, whose decoders refuse anything else.
[[nodiscard]] std::string ToUtf8(std::string_view text);

}  // namespace praas
