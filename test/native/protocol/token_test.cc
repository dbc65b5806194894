#include "protocol/token.h"

#include <gtest/gtest.h>

#include "base/base64url.h"
#include "base/sha256.h"
#include "protocol/frame.h"

namespace praas::protocol {
namespace {

const std::string kKey(kTokenKeyBytes, 'k');

Token AToken() { return {.process = "grid", .verbs = kVerbInvoke | kVerbStateRead, .expires_ms = 1'764'416'263'123}; }

/// Signed as it is, whatever it says.
std::string Signed(std::vector<std::byte> bytes) {
  const Sha256::Digest mac = HmacSha256(std::as_bytes(std::span(kKey)), bytes);
  bytes.insert(bytes.end(), mac.begin(), mac.end());
  return ToBase64Url(bytes);
}

std::vector<std::byte> SignedPartOf(const Token& token) {
  std::vector<std::byte> bytes = *FromBase64Url(MintToken(kKey, token));
  bytes.resize(bytes.size() - Sha256::kDigestBytes);
  return bytes;
}

TEST(Token, RoundTrips) {
  for (const bool ends : {true, false}) {
    for (const size_t length : {1u, 254u, 255u}) {
      for (uint8_t verbs = 1; verbs <= kAllVerbs; ++verbs) {
        const Token token{.process = std::string(length, 'x'),
                          .verbs = verbs,
                          .expires_ms = UINT64_MAX - 3,
                          .ends_connections = ends};
        const Result<Token> read = OpenToken(kKey, MintToken(kKey, token));
        ASSERT_TRUE(read.ok()) << read.status().message();
        EXPECT_EQ(*read, token);
      }
    }
  }
}

// test/token.test.ts has the same.
TEST(Token, IsTheSameInTypeScript) {
  EXPECT_EQ(MintToken(kKey, AToken()), "AQMBANOTZ8-aAQAAZ3JpZFn31kB9Pkogvbh9qk-oAaG2-uS7XbKLZw4UmHNm2qes");
}

TEST(Token, AnyChangeIsFound) {
  const std::vector<std::byte> good = *FromBase64Url(MintToken(kKey, AToken()));
  for (size_t bit = 0; bit < 8 * good.size(); ++bit) {
    std::vector<std::byte> bad = good;
    bad[bit / 8] ^= std::byte{1} << bit % 8;
    EXPECT_EQ(OpenToken(kKey, ToBase64Url(bad)).status().code(), Code::kTokenInvalid) << "bit " << bit;
  }
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_EQ(OpenToken(kKey, ToBase64Url(std::span(good).first(size))).status().code(), Code::kTokenInvalid);
  }
  std::vector<std::byte> longer = good;
  longer.push_back(std::byte{0});
  EXPECT_EQ(OpenToken(kKey, ToBase64Url(longer)).status().code(), Code::kTokenInvalid);
}

TEST(Token, OfAnotherKeyIsRefused) {
  std::string other = kKey;
  other.back() = 'l';
  EXPECT_EQ(OpenToken(other, MintToken(kKey, AToken())).status().code(), Code::kTokenInvalid);
}

TEST(Token, TextThatIsNoneIsRefused) {
  const std::string good = MintToken(kKey, AToken());
  for (const std::string& text : {std::string(), std::string("x"), std::string(kMaxToken, 'A'),
                                  std::string(kMaxToken + 1, 'A'), good + "=", " " + good, good + "\n"}) {
    EXPECT_EQ(OpenToken(kKey, text).status().code(), Code::kTokenInvalid) << text;
  }
}

TEST(Token, OfAnotherVersionIsRefusedEvenIfSigned) {
  ASSERT_TRUE(OpenToken(kKey, Signed(SignedPartOf(AToken()))).ok());
  for (const auto& [at, value] :
       {std::pair(0u, 0), std::pair(0u, 2), std::pair(1u, 0), std::pair(1u, 32), std::pair(2u, 2), std::pair(3u, 1)}) {
    std::vector<std::byte> bytes = SignedPartOf(AToken());
    bytes[at] = static_cast<std::byte>(value);
    EXPECT_EQ(OpenToken(kKey, Signed(bytes)).status().code(), Code::kTokenInvalid) << at << " = " << value;
  }
  std::vector<std::byte> bytes = SignedPartOf(AToken());
  bytes.resize(12);  // no process
  EXPECT_EQ(OpenToken(kKey, Signed(bytes)).status().code(), Code::kTokenInvalid);
  bytes.resize(12 + kMaxName + 1, std::byte{'x'});
  EXPECT_EQ(OpenToken(kKey, Signed(bytes)).status().code(), Code::kTokenInvalid);
}

TEST(Token, ARefusalRepeatsNothing) {
  const std::string token = MintToken(std::string(kTokenKeyBytes, 'l'), AToken());
  EXPECT_EQ(OpenToken(kKey, token).status().message().find(token), std::string::npos);
}

TEST(Token, VerbsHaveNames) {
  EXPECT_EQ(VerbNames(kVerbStateRead | kVerbStateWrite, " or "), "state-read or state-write");
  EXPECT_EQ(VerbNames(kAllVerbs, ", "), "invoke, state-read, state-write, lease, admin");
}

}  // namespace
}  // namespace praas::protocol
