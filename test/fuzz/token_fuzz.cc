// Any bytes as a token: as text, of which only what was signed is one; and as what was signed, whatever it says.

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/base64url.h"
#include "base/sha256.h"
#include "protocol/token.h"

namespace {

using namespace praas;

void Check(bool holds) {
  if (!holds) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string key(protocol::kTokenKeyBytes, 'k');
  // Copies of exactly this size, so that reading beyond the end is found.
  const std::string text(reinterpret_cast<const char*>(data), size);
  if (const auto bytes = FromBase64Url(text)) Check(ToBase64Url(*bytes) == text);
  if (const auto token = protocol::OpenToken(key, text); token.ok()) {
    Check(protocol::MintToken(key, token.value()) == text);
  }

  std::vector<std::byte> bytes(reinterpret_cast<const std::byte*>(data),
                               reinterpret_cast<const std::byte*>(data) + size);
  const Sha256::Digest mac = HmacSha256(std::as_bytes(std::span(key)), bytes);
  bytes.insert(bytes.end(), mac.begin(), mac.end());
  const std::string made = ToBase64Url(bytes);
  if (const auto token = protocol::OpenToken(key, made); token.ok()) {
    Check(token->verbs != 0 && token->verbs <= protocol::kAllVerbs);
    Check(!token->process.empty());
    Check(protocol::MintToken(key, token.value()) == made);
  }
  Check(!protocol::OpenToken(std::string(protocol::kTokenKeyBytes, 'l'), made).ok());
  return 0;
}
