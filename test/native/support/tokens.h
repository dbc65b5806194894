#pragma once

#include <cstdint>
#include <string>

#include "base/clock.h"
#include "protocol/token.h"

/// The key of the processes of tests, and tokens that are signed with it.
namespace praas::test {

inline const std::string kProcessKey(protocol::kTokenKeyBytes, 'k');

inline uint64_t NowMs() { return WallNs() / 1'000'000; }

/// For process "p", for an hour; connections stay.
inline std::string TokenFor(uint8_t verbs) {
  return protocol::MintToken(
      kProcessKey, {.process = "p", .verbs = verbs, .expires_ms = NowMs() + 3'600'000, .ends_connections = false});
}

}  // namespace praas::test
