#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"

/// Capability tokens of data connections (docs/security.md, docs/protocol.md "Tokens"): what its holder may ask of one
/// process, and until when, signed with the process's key. Whoever has the key can say so; a host asks nobody.
namespace praas::protocol {

/// What a token allows, as bits. src/token.ts has the same.
enum Verb : uint8_t {
  kVerbInvoke = 1 << 0,      // calls, streams, names of functions, faster transports for them
  kVerbStateRead = 1 << 1,   // values, keys, read locks
  kVerbStateWrite = 1 << 2,  // values, publishing, write locks
  kVerbLease = 1 << 3,       // leases; their workers are called by kVerbInvoke
  kVerbAdmin = 1 << 4,       // statistics, inspection, lists of leases; draining
};
inline constexpr uint8_t kAllVerbs = 31;

/// "invoke", "state-read", …: all of `verbs`.
[[nodiscard]] std::string VerbNames(uint8_t verbs, std::string_view separator);

inline constexpr size_t kTokenKeyBytes = 32;

struct Token {
  std::string process{};    // 1 … 255 bytes
  uint8_t verbs = 0;        // of Verb, at least one
  uint64_t expires_ms = 0;  // since the epoch: from then on it opens no connection
  /// Connections end when it expires; else they stay until their client ends them.
  bool ends_connections = true;

  friend bool operator==(const Token&, const Token&) = default;
};

/// The token as text (base64url). `key` has kTokenKeyBytes.
[[nodiscard]] std::string MintToken(std::string_view key, const Token& token);

/// What `text` says if it was signed with `key`: kTokenInvalid otherwise, and no more than that. Takes a time that does
/// not depend on where a wrong signature differs. Whose process it is, and whether it has expired, is left to the
/// caller.
[[nodiscard]] Result<Token> OpenToken(std::string_view key, std::string_view text);

}  // namespace praas::protocol
