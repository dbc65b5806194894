#include "protocol/token.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <vector>

#include "base/base64url.h"
#include "base/sha256.h"
#include "protocol/frame.h"
#include "protocol/little_endian.h"
#include "protocol/messages.h"

namespace praas::protocol {
namespace {

// version u8, verbs u8, flags u8, 0 u8, expires u64, process, HMAC-SHA256 of all before.
constexpr std::byte kTokenVersion{1};
constexpr uint8_t kEndsConnections = 1;
constexpr size_t kHeadBytes = 12;
constexpr size_t kMacBytes = Sha256::kDigestBytes;
static_assert((kHeadBytes + kMaxName + kMacBytes) * 4 / 3 + 1 <= kMaxToken);

constexpr std::array<std::string_view, 5> kNames = {"invoke", "state-read", "state-write", "lease", "admin"};
static_assert(1u << kNames.size() == kAllVerbs + 1u);

std::span<const std::byte> Bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string_view Text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

}  // namespace

std::string VerbNames(uint8_t verbs, std::string_view separator) {
  std::string names;
  for (size_t i = 0; i < kNames.size(); ++i) {
    if ((verbs >> i & 1) == 0) continue;
    if (!names.empty()) names += separator;
    names += kNames[i];
  }
  return names;
}

std::string MintToken(std::string_view key, const Token& token) {
  std::vector<std::byte> bytes(kHeadBytes);
  bytes[0] = kTokenVersion;
  bytes[1] = std::byte{token.verbs};
  bytes[2] = std::byte{token.ends_connections ? kEndsConnections : uint8_t{0}};
  StoreLittle(bytes.data() + 4, token.expires_ms);
  bytes.insert(bytes.end(), Bytes(token.process).begin(), Bytes(token.process).end());
  const Sha256::Digest mac = HmacSha256(Bytes(key), bytes);
  bytes.insert(bytes.end(), mac.begin(), mac.end());
  return ToBase64Url(bytes);
}

Result<Token> OpenToken(std::string_view key, std::string_view text) {
  const Status invalid(Code::kTokenInvalid, "the token is not valid for this process");
  if (text.size() > kMaxToken) return invalid;
  const std::optional<std::vector<std::byte>> bytes = FromBase64Url(text);
  if (!bytes || bytes->size() <= kHeadBytes + kMacBytes || bytes->size() > kHeadBytes + kMaxName + kMacBytes) {
    return invalid;
  }
  const std::span<const std::byte> signed_part = std::span(*bytes).first(bytes->size() - kMacBytes);
  const Sha256::Digest mac = HmacSha256(Bytes(key), signed_part);
  if (!SecretsEqual(Text(mac), Text(std::span(*bytes).last(kMacBytes)))) return invalid;
  // Signed, so it says what its maker meant; a newer one may have meant more than is known here.
  const auto verbs = static_cast<uint8_t>(signed_part[1]);
  const auto flags = static_cast<uint8_t>(signed_part[2]);
  if (signed_part[0] != kTokenVersion || verbs == 0 || verbs > kAllVerbs || flags > kEndsConnections ||
      signed_part[3] != std::byte{0}) {
    return Status(Code::kTokenInvalid, "the token was made by another version");
  }
  return Token{.process = std::string(Text(signed_part.subspan(kHeadBytes))),
               .verbs = verbs,
               .expires_ms = LoadLittle<uint64_t>(signed_part.data() + 4),
               .ends_connections = flags == kEndsConnections};
}

}  // namespace praas::protocol
